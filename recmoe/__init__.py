"""Multi-task ranking: mixture-of-experts models from click and conversion logs to a ranking API."""

__version__ = "0.1.0"
