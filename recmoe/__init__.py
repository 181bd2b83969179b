"""Multi-task ranking: mixture-of-experts models from click and conversion logs to a ranking API."""

import os

__version__ = "0.1.0"

# Threads that spin at barriers slow every process on a full machine, up to twenty times. libgomp
# reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
