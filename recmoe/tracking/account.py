"""user_name(), ensure_home(): an account that the machine may not know, as in containers with a free user id."""

import getpass
import os
import tempfile
from pathlib import Path


def user_name() -> str:
    """Who runs this process: by the environment or the list of users, else by number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def ensure_home() -> None:
    """Give packages that ask for a home folder while they are imported, as MLflow does, one to find."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
