"""A load generator for ranking servers."""
