"""Bring up workers and a coordinator for a job: in this process, on this machine's Ray, or on a cluster."""
