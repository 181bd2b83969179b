"""Measurements of speed, each by one command; not part of the installed package."""
