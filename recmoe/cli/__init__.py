"""The command line: ``recmoe doctor | data | init | plan | train | evaluate | … | serve | rank``."""

from recmoe.cli.app import app, main

__all__ = ["app", "main"]
