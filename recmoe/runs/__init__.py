"""Runs: a folder from config to bundle, and what is done with it."""
