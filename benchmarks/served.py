"""served: a server of the command line in a process of its own, ended at the end."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def served(
    source: str, options: Sequence[str], *, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """``recmoe serve`` with some options on a free port; the port and the process.

    Args:
        source: a bundle, or a model of the registry.
        folder: in which it runs.
        environment: variables besides those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "from recmoe.cli import main; main()", "serve", source, "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT.resolve())},
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+), API page", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start; its messages are above")
        yield int(found[1]), process
    finally:
        process.terminate()
        process.wait()
