"""Where runs are recorded. Importing this loads no MLflow; building an MLflow tracker does."""

from recmoe.tracking.tracker import NullTracker, Tracker, TrackingConfig, metric_name

__all__ = ["NullTracker", "Tracker", "TrackingConfig", "metric_name"]
