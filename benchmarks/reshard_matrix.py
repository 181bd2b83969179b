"""Checkpoints saved by A and resumed by B, for every pair of numbers of processes and shardings.

    python -m benchmarks.reshard_matrix [--cases 1:table_wise 2:column_wise 4:data_parallel] [--json]

Each A trains four steps, saves after the second one, and so is the unbroken run of its own checkpoint. Each B loads
the checkpoint of every A, which must be the saved state bit for bit (weights and optimizer state of tables and dense
part), and trains the other two steps on the same global batches. Its state then differs from the unbroken one by
nothing but the order of sums: gradients of several processes are added in another order than those of one.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks.forked import run_processes
from benchmarks.small_run import SmallRun
from recmoe.training.checkpoint import load, save
from recmoe.training.checkpoint_contents import compare
from recmoe.training.checkpoint_folder import step_folder

SAVED_STEP, LAST_STEP = 2, 4
TOLERANCE = 1e-6
SHARDINGS = ("table_wise", "column_wise", "data_parallel")
CASES = tuple(f"{number}:{sharding}" for number in (1, 2, 4) for sharding in SHARDINGS)


@dataclass(frozen=True)
class Case:
    """Who trains."""

    num_processes: int
    sharding: str

    def __str__(self) -> str:
        return f"{self.num_processes}:{self.sharding}"

    def run(self, root: Path, rank: int, *, is_async: bool = False) -> SmallRun:
        """On one of its processes."""
        tables = {
            "backend": "torchrec",
            # Row-wise Adagrad is refused where columns are cut: its result would depend on the shards.
            "optimizer": {"kind": "adagrad"},
            "sharding": dict.fromkeys(("user", "tags", "item", "place"), self.sharding),
        }
        return SmallRun(root, tables, rank=rank, world_size=self.num_processes, is_async=is_async)


@dataclass(frozen=True)
class Outcome:
    """A checkpoint of one case, resumed by another."""

    saved_by: str
    resumed_by: str
    is_loaded_equal: bool
    """Whether the loaded state is the saved one bit for bit."""
    is_end_equal: bool
    """Whether the state after the last step is that of the unbroken run bit for bit."""
    max_difference: float
    """Largest absolute difference from the unbroken run after the last step."""


def run_matrix(folder: Path, cases: list[Case]) -> list[Outcome]:
    """Every pair of cases."""
    for case in cases:
        run_processes(partial(_save, folder, case), folder / "processes", world_size=case.num_processes)
    for case in cases:
        run_processes(partial(_resume, folder, case, cases), folder / "processes", world_size=case.num_processes)
    return [_outcome(folder, saved, resumed) for saved, resumed in product(cases, cases)]


def _folder(folder: Path, case: Case) -> Path:
    return folder / str(case).replace(":", "-")


def _save(folder: Path, case: Case, rank: int, world_size: int) -> None:
    """The unbroken run, which saves beside its third step, and at its end."""
    del world_size
    run = case.run(_folder(folder, case), rank, is_async=True)
    run.train(0, SAVED_STEP)
    run.store.save(SAVED_STEP, {})
    run.train(SAVED_STEP, LAST_STEP)
    run.store.save(LAST_STEP, {})
    run.store.finish()


def _resume(folder: Path, case: Case, sources: list[Case], rank: int, world_size: int) -> None:
    """Each loaded state is saved again as it is, and again at the end."""
    del world_size
    run = case.run(folder / "none", rank)
    for source in sources:
        home = _folder(folder, source)
        again = _folder(home, case)
        load(step_folder(home, SAVED_STEP), **run.parts)
        save(step_folder(again, SAVED_STEP), state={}, **run.parts)
        run.train(SAVED_STEP, LAST_STEP)
        save(step_folder(again, LAST_STEP), state={}, **run.parts)


def _outcome(folder: Path, saved: Case, resumed: Case) -> Outcome:
    home = _folder(folder, saved)
    again = _folder(home, resumed)
    loaded = _difference(step_folder(home, SAVED_STEP), step_folder(again, SAVED_STEP))
    end = _difference(step_folder(home, LAST_STEP), step_folder(again, LAST_STEP))
    return Outcome(str(saved), str(resumed), loaded == 0.0, end == 0.0, end)


def _difference(first: Path, second: Path) -> float:
    """Largest absolute difference of two checkpoints; infinite where one has a tensor that the other has not."""
    _, differences = compare(first, second)
    return max((math.inf if found.kind != "values" else found.max_abs for found in differences), default=0.0)


def print_matrix(outcomes: list[Outcome]) -> None:
    """Saved by in rows, resumed by in columns: the largest difference; = is bit for bit, ! what must not be."""
    names = list(dict.fromkeys(outcome.saved_by for outcome in outcomes))
    found = {(outcome.saved_by, outcome.resumed_by): outcome for outcome in outcomes}
    width = max(map(len, names)) + 2
    print("saved by ↓ resumed by →".ljust(width) + "".join(name.rjust(width) for name in names))
    for saved in names:
        cells = []
        for resumed in names:
            outcome = found[saved, resumed]
            text = "=" if outcome.is_end_equal else f"{outcome.max_difference:.1e}"
            cells.append(text if is_good(outcome) else f"{text}!")
        print(saved.ljust(max(width, 23)) + "".join(cell.rjust(width) for cell in cells))
    num_good = sum(is_good(outcome) for outcome in outcomes)
    print(
        f"\n{num_good} of {len(outcomes)} pairs are good: loaded bit for bit, and within {TOLERANCE:g} of the unbroken "
        f"run two steps later; {sum(outcome.is_end_equal for outcome in outcomes)} of them bit for bit (=). "
        f"Largest difference: {max(outcome.max_difference for outcome in outcomes):.1e}"
    )


def is_good(outcome: Outcome) -> bool:
    """Whether a resumed run is the unbroken one."""
    return outcome.is_loaded_equal and outcome.max_difference <= TOLERANCE


def main(arguments: list[str] | None = None) -> int:
    """0 if all pairs are good."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", default=CASES, metavar="PROCESSES:SHARDING", help="all of them by default"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    cases = [Case(int(text.split(":")[0]), text.split(":")[1]) for text in options.cases]
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        outcomes = run_matrix(Path(folder), cases)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        print_matrix(outcomes)
    return 0 if all(map(is_good, outcomes)) else 1


if __name__ == "__main__":
    sys.exit(main())
