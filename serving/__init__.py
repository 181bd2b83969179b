"""The ranking API."""
