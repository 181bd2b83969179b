"""Multi-task ranking: mixture-of-experts models from click and conversion logs to a ranking API."""

import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING

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

# What is public is imported when it is first used: a server must not load what only training needs.
if TYPE_CHECKING:
    from recmoe import errors
    from recmoe.client.client import RankClient
    from recmoe.experiment import load_experiment
    from recmoe.export.bundle import ModelBundle
    from recmoe.face.fit import evaluate, fit, train
    from recmoe.ranking.ranker import Ranker
    from recmoe.registry.registry import Registry
else:
    _HOMES = {
        "ModelBundle": "recmoe.export.bundle",
        "RankClient": "recmoe.client.client",
        "Ranker": "recmoe.ranking.ranker",
        "Registry": "recmoe.registry.registry",
        "evaluate": "recmoe.face.fit",
        "fit": "recmoe.face.fit",
        "load_experiment": "recmoe.experiment",
        "train": "recmoe.face.fit",
    }

    def __getattr__(name):
        if name == "errors":
            return importlib.import_module("recmoe.errors")
        if name not in _HOMES:
            raise AttributeError(f"module 'recmoe' has no attribute {name!r}; it has {', '.join(__all__)}")
        globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ["ModelBundle", "RankClient", "Ranker", "Registry", "errors", "evaluate", "fit", "load_experiment", "train"]
