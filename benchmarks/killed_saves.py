"""Processes that train and save are killed with -9 at random moments of a save; what is left must load rightly.

    python -m benchmarks.killed_saves [--kills 20] [--seed 0] [--json]

After every kill the newest good checkpoint is set aside, and the next attempt resumes from it. At the end each of
them is compared with the same step of a run that nobody disturbed: it must be equal bit for bit.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.forked import TIMEOUT_S, run_processes, start_processes
from benchmarks.small_run import SmallRun
from recmoe.cli.output import print_columns
from recmoe.errors import CheckpointError
from recmoe.training.checkpoint_contents import compare
from recmoe.training.checkpoint_folder import committed, newest_good, step_folder, step_of, uncommitted, verify

NUM_ROWS = 10_000
"""Of each of four tables: enough for a save to take a while."""
WINDOW_S = 0.15
"""A kill comes at a moment of the first so many seconds after a save was seen to begin: a few saves long."""


@dataclass(frozen=True)
class Mode:
    """How the killed processes save."""

    num_processes: int
    is_async: bool

    def __str__(self) -> str:
        return f"{self.num_processes} {'beside the training' if self.is_async else 'waiting'}"


MODES = (Mode(1, False), Mode(1, True), Mode(2, True))


@dataclass(frozen=True)
class Kill:
    """One attempt."""

    mode: str
    moment_s: float
    """After a save was seen to begin."""
    was_saving: bool
    """Whether a checkpoint was left half."""
    newest_step: int | None
    """Of the newest good checkpoint."""
    num_damaged: int
    """Checkpoints that look committed and are not good; none is allowed."""
    is_right: bool
    """Whether the newest good one is the undisturbed run's, bit for bit."""


@dataclass(frozen=True)
class _Attempt:
    """What a kill left."""

    mode: Mode
    moment_s: float
    was_saving: bool
    num_damaged: int
    newest: Path | None
    """Set aside."""


def run_kills(folder: Path, *, num_kills: int, seed: int) -> list[Kill]:
    """Kill in turn each of the modes."""
    generator = random.Random(seed)
    attempts = [_attempt(folder, MODES[number % len(MODES)], number, generator) for number in range(num_kills)]
    for mode in MODES:
        steps = {step_of(one.newest) for one in attempts if one.mode == mode and one.newest is not None}
        if steps:
            run_processes(
                partial(_undisturbed, folder / "undisturbed" / str(mode), steps),
                folder / "processes",
                world_size=mode.num_processes,
            )
    return [_judged(folder, one) for one in attempts]


def _attempt(folder: Path, mode: Mode, number: int, generator: random.Random) -> _Attempt:
    """Start the processes, wait for a save to begin and a moment longer, kill one of them, then the others."""
    root = folder / str(mode)
    moment_s = generator.uniform(0.0, WINDOW_S)
    victim = generator.randrange(mode.num_processes)
    left = set(uncommitted(root))
    with _processes(partial(_train_and_save, root, mode), folder, mode) as processes:
        while not set(uncommitted(root)) - left:
            assert processes[victim].is_alive(), "the process ended by itself"
            time.sleep(0.0005)
        time.sleep(moment_s)
        processes[victim].kill()
        processes[victim].join()
    newest = newest_good(root)
    kept = None
    if newest is not None:
        kept = folder / "kept" / str(number) / newest.name
        shutil.copytree(newest, kept, copy_function=os.link)
    num_damaged = sum(not _is_good(one) for one in committed(root))
    return _Attempt(mode, moment_s, bool(uncommitted(root)), num_damaged, kept)


@contextmanager
def _processes(work: partial[None], folder: Path, mode: Mode) -> Iterator[list[BaseProcess]]:
    processes = start_processes(work, folder / "processes", world_size=mode.num_processes, is_quiet=True)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join(TIMEOUT_S)


def _train_and_save(root: Path, mode: Mode, rank: int, world_size: int) -> None:
    """Go on from the newest checkpoint, and save after every step, until the end comes from outside."""
    run = _run(root, rank, world_size, is_async=mode.is_async)
    step = run.store.latest() or 0
    if step:
        run.store.load(step)
    while True:
        run.train(step, step + 1)
        step += 1
        run.store.save(step, {"step": step})


def _undisturbed(root: Path, steps: set[int], rank: int, world_size: int) -> None:
    run = _run(root, rank, world_size, keep=len(steps))
    for step in range(max(steps)):
        run.train(step, step + 1)
        if step + 1 in steps:
            run.store.save(step + 1, {"step": step + 1})


def _run(root: Path, rank: int, world_size: int, *, is_async: bool = False, keep: int = 2) -> SmallRun:
    tables = {"backend": "torchrec", "optimizer": {"kind": "rowwise_adagrad"}}
    return SmallRun(root, tables, rank=rank, world_size=world_size, num_rows=NUM_ROWS, is_async=is_async, keep=keep)


def _judged(folder: Path, attempt: _Attempt) -> Kill:
    newest = attempt.newest
    is_right = newest is None or not compare(newest, _expected(folder, attempt.mode, newest))[1]
    return Kill(
        mode=str(attempt.mode),
        moment_s=attempt.moment_s,
        was_saving=attempt.was_saving,
        newest_step=None if newest is None else step_of(newest),
        num_damaged=attempt.num_damaged,
        is_right=is_right,
    )


def _expected(folder: Path, mode: Mode, checkpoint: Path) -> Path:
    return step_folder(folder / "undisturbed" / str(mode), step_of(checkpoint))


def _is_good(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing that was left loads wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        kills = run_kills(Path(folder), num_kills=options.kills, seed=options.seed)
    if options.json:
        print(json.dumps([asdict(kill) for kill in kills], indent=2))
    else:
        headers = ["processes, saving", "ms into a save", "left half", "newest good step", "damaged", "right"]
        print_columns(
            headers,
            [
                (one.mode, 1e3 * one.moment_s, one.was_saving, one.newest_step or 0, one.num_damaged, one.is_right)
                for one in kills
            ],
        )
        num_right = sum(kill.is_right and not kill.num_damaged for kill in kills)
        print(
            f"\n{len(kills)} kills, {sum(kill.was_saving for kill in kills)} of them left a checkpoint half: "
            f"after {num_right} everything that can be loaded was right"
        )
    return 0 if all(kill.is_right and not kill.num_damaged for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
