"""The command line of the training benchmark: what to measure, of whom, and where the results go."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import PEERS
from benchmarks.peers.job import Model
from benchmarks.results import OURS
from recmoe.errors import ConfigError

CACHE = Path(__file__).parent / ".cache"
MODELS: tuple[Model, ...] = ("mmoe", "ple")
PARTICIPANTS = (OURS, *PEERS)
SWITCHES = ("bf16", "fp32", "shipped", "tuned")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    to: Path
    log: Path
    venvs: Path
    num_rows: int
    log_seed: int
    batch_size: int
    device: str
    only: tuple[str, ...]
    models: tuple[Model, ...]
    switches: tuple[str, ...]
    epoch: tuple[str, ...]
    seeds: tuple[int, ...]
    num_rounds: int
    num_steps: int | None
    num_ready_steps: int
    timeout_s: float
    is_fresh: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What results must share to be compared."""
        return {"rows": self.num_rows, "log seed": self.log_seed, "batch": self.batch_size, "device": self.device}


def read_options(arguments: list[str], *, about: str | None = None) -> Options:
    """The command line.

    Args:
        about: what ``--help`` begins with.

    Raises:
        ConfigError: a participant or a model that does not exist, or a number that makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=CACHE / "training", help="results, table, plot (%(default)s)")
    parser.add_argument("--log", type=Path, help=f"folder of the Parquet files ({CACHE}/log)")
    parser.add_argument("--venvs", type=Path, default=CACHE / "venvs", help="environments of the peers (%(default)s)")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the log (%(default)s)")
    parser.add_argument("--log-seed", type=int, default=0, help="of the log (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=4096, help="rows per step (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for everybody (%(default)s)")
    parser.add_argument("--only", default=",".join(PARTICIPANTS), help="participants of the speed runs (%(default)s)")
    parser.add_argument("--models", default=",".join(MODELS), help="(%(default)s)")
    parser.add_argument("--switches", default=",".join(SWITCHES), help="recmoe has the first two (%(default)s)")
    parser.add_argument("--epoch", default="", help="participants that also train a full epoch, for their test AUC")
    parser.add_argument("--seeds", default="0", help="of the full epochs, such as 0,1,2 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each speed is measured (%(default)s)")
    parser.add_argument("--steps", type=int, help="of a speed run (recmoe 400, peers 80)")
    parser.add_argument("--ready-steps", type=int, default=30, help="on ready batches; 0 for none (%(default)s)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds one process may take (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget what has been measured before")
    found = parser.parse_args(arguments)
    for name, least in (("rounds", 0), ("batch_size", 1), ("ready_steps", 0)):
        if getattr(found, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(found, name)}")
    if found.steps is not None and found.steps < 5:
        raise ConfigError(f"--steps must be at least 5, for the first 3 are not timed; got {found.steps}")
    return Options(
        to=found.to,
        log=found.log or CACHE / "log",
        venvs=found.venvs,
        num_rows=found.rows,
        log_seed=found.log_seed,
        batch_size=found.batch_size,
        device=found.device,
        only=_names("--only", found.only, PARTICIPANTS),
        models=tuple(model for model in MODELS if model in _names("--models", found.models, MODELS)),
        switches=_names("--switches", found.switches, SWITCHES),
        epoch=_names("--epoch", found.epoch, PARTICIPANTS),
        seeds=_numbers("--seeds", found.seeds),
        num_rounds=found.rounds,
        num_steps=found.steps,
        num_ready_steps=found.ready_steps,
        timeout_s=found.timeout,
        is_fresh=found.fresh,
    )


def _names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: there is no {name!r}; choose from {', '.join(known)}")
    return names


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} must be whole numbers such as 0,1,2, got {text!r}") from error
