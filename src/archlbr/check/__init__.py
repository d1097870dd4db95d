"""The explorer: any model of four functions, searched over every interleaving; it knows nothing of LBRs."""
