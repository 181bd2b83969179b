"""Measurements of speed, each by one command; not part of the installed package."""

# Before any of them imports torch, whose threads else wait busily.
import recmoe  # noqa: F401
