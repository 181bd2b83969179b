"""Hostile requests to a running server, and what it makes of them; see ``__main__``."""
