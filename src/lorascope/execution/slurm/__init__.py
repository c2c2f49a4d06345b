"""A cluster under Slurm as a place to run packs: a job each, through submitit."""
