"""peer_python(): an environment of its own for each peer, made by pip on first use."""

import subprocess
import sys
from pathlib import Path

from recmoe.errors import StackError

TORCH = "torch==2.13.0"
PEERS: dict[str, tuple[str, ...]] = {
    # scikit-learn computes the test AUC; pyarrow reads the log.
    "torch-rechub": ("torch-rechub==0.9.0", "pyarrow"),
    "fuxictr": ("fuxictr==2.3.10",),
    # It imports requests without asking for it.
    "deepctr-torch": ("deepctr-torch==0.3.0", "requests", "pandas", "pyarrow"),
}
"""What is installed after torch, by peer."""


def peer_python(name: str, venvs: Path) -> Path:
    """The interpreter of a peer's environment, which is made if it is missing or out of date.

    torch comes first, as in the Makefile, so that no peer chooses its build.

    Raises:
        StackError: pip failed; the message ends with what it said.
    """
    folder = venvs / name
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = "\n".join((TORCH, *PEERS[name]))
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    stamp.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], name)
    pip = [str(python), "-m", "pip", "install", "-q", "--progress-bar", "off", "--disable-pip-version-check"]
    _run([*pip, TORCH], name)
    _run([*pip, *PEERS[name]], name)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise StackError(f"the environment of {name} could not be made by {' '.join(command)}: " + " / ".join(lines))
