"""Metrics by task, space and slice, with intervals; the report as JSON, table and page."""
