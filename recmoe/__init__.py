"""Multi-task ranking: mixture-of-experts models from click and conversion logs to a ranking API."""

import logging
import os
import sys

__version__ = "0.1.0"

# Threads that wait busily at barriers make a step two to three times slower where another process runs; threads
# that sleep at once make it a tenth slower where none does. A thousand turns, some microseconds, and then sleep cost
# little in either case. libgomp reads this once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if "torch" in sys.modules:
        logging.getLogger(__name__).warning(
            "torch was imported before recmoe: its threads wait busily, which makes training slow on a machine with "
            "other work; import recmoe first, or set OMP_WAIT_POLICY=passive"
        )
