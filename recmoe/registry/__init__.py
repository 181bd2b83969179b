"""Versions of models, and which one is in use. Importing this loads no MLflow; its modules do."""
