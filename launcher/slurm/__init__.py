"""Runs on a Slurm cluster: site profiles, submission, and the agent between Slurm's signals and the driver."""
