"""What a running machine leaves behind: its branches and samples, in the profile room's spools."""
