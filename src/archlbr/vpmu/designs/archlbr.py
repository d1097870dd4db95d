"""`archlbr`: the behaviour that the architecture and the reviewers of the series ask for; the default.

Where the two leave a choice, the choice has a decision record (docs/decisions/020 and following). Compare field by
field with `series_v2`.
"""

from __future__ import annotations

from archlbr.vpmu.designs.protocol import Design

ARCHLBR = Design(
    name="archlbr",
    opt_out=0,
    highest_depth_only=0,
    refuses_cpuid=0,
    unfiltered_leaf=0,
    zeroes_xss_leaf=0,
    xss_for_every_guest=0,
    checks_leaves=1,
    wants_long_mode=1,
    wants_format=1,
    lists_records=1,
    lists_debugctl=1,
    virtual_ler=1,
    raw_records=0,
    raw_depth=0,
    keeps_records=1,
    lazy_release=0,
    loads_unowned=0,
    restores_host_ctl=1,
    xss_exiting=1,
    xrstors_asks=1,
    freezes_v4=1,
    db_wants_event=0,
    nmi_clears=0,
    init_clears=0,
    warm_is_cold=0,
    reset_wipes=1,
    smram_needs_lm=0,
    rsm_clobbers=0,
    keeps_freeze_in_smm=1,
    strips_late=0,
    l2_runs_open=0,
)
