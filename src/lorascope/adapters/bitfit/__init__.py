"""BitFit: every bias of the base, and nothing else."""
