"""What holds for every test: few threads, and no verdict that depends on the machine's speed."""

import os

# Read once, when torch and numpy are first imported; a test's child processes inherit them.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="2")

from hypothesis import HealthCheck, settings

settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")
