"""Versions of models, and which one is in use. Importing this loads no MLflow; its modules do."""

# What MLflow needs of the environment when it is imported.
import recmoe.tracking  # noqa: F401
