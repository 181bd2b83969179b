"""A user at the command line, a small log, and a run over it that is made once."""

import io
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.cli import main

TINY = (
    "model.architecture={kind: shared_bottom, hidden: [8]}",
    "training.batch_size=64",
    "training.max_steps=4",
    "training.checkpoint_every=2",
    "training.early_stopping=null",
    "tables.backend=plain",
    "tracking.kind=none",
    "evaluation.num_resamples=0",
    "evaluation.baselines=[]",
    "data.test=[]",
)


@dataclass(frozen=True)
class Said:
    """What a command told its user."""

    code: int
    out: str
    errors: str
    """Lines of progress are left out."""


Recmoe = Callable[..., Said]


def run_main(*arguments: object) -> Said:
    """The entry point of the installed command, in this process."""
    out, errors = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["recmoe", *map(str, arguments)])
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    assert isinstance(code, int)
    lines = errors.getvalue().splitlines(keepends=True)
    return Said(code, out.getvalue(), "".join(line for line in lines if not line.startswith("step ")))


@pytest.fixture(scope="session")
def recmoe() -> Recmoe:
    """Runs one command: ``recmoe("rank", request, "--model", run)``."""
    return run_main


@pytest.fixture(scope="session")
def train() -> Recmoe:
    """Trains a tiny model: ``train(config, "key=value", "--run-dir", folder)``."""
    return lambda config, *arguments: run_main("train", config, *TINY, *arguments)


@pytest.fixture(scope="session")
def shared_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 rows in three splits and their config; no test changes it."""
    folder = tmp_path_factory.mktemp("log")
    assert run_main("data", "synthetic", "--to", folder, "--rows", 1000).code == 0
    return folder


@pytest.fixture(scope="session")
def shared_run(shared_log: Path, train: Recmoe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over it, with the checkpoints of steps 2 and 4; no test changes it."""
    folder = tmp_path_factory.mktemp("runs") / "shop"
    said = train(shared_log / "config.yaml", "--run-dir", folder)
    assert said.code == 0, said.errors
    return folder


@pytest.fixture
def log(shared_log: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(shared_log, tmp_path / "log"))


@pytest.fixture
def run(shared_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(shared_run, tmp_path / "run"))


@pytest.fixture
def spoil() -> Callable[..., None]:
    """Replaces one column of a Parquet file: ``spoil(path, "click", lambda values: …)``."""

    def change(path: Path, column: str, values: Callable[[list[object]], list[object]]) -> None:
        table = pq.read_table(path)
        place = table.column_names.index(column)
        changed = pa.array(values(table[column].to_pylist()))
        # Small row groups, so that one of them can be damaged.
        pq.write_table(table.set_column(place, column, changed), path, row_group_size=100)

    return change
