"""Where runs are recorded. Importing this loads no MLflow; building an MLflow tracker does."""

import os

from recmoe.tracking.account import ensure_home
from recmoe.tracking.tracker import NullTracker, Tracker, TrackingConfig, metric_name

__all__ = ["NullTracker", "Tracker", "TrackingConfig", "metric_name"]

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
ensure_home()
