"""check_data(): read every row of a config's splits as training would, and report what is in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recmoe.evaluation.baselines import Baselines
from recmoe.experiment import ExperimentConfig
from recmoe.onboarding.leaks import LeakReport, find_leaks
from recmoe.runs.baselines import learn_baselines
from recmoe.runs.check_warnings import chance_warnings, check_warnings
from recmoe.runs.encoder import learn_encoder
from recmoe.runs.split_check import SPLITS, Split, SplitCheck, count_split


@dataclass(frozen=True)
class DataCheck:
    """All splits, and the tables that training would make."""

    splits: Mapping[Split, SplitCheck]
    table_rows: Mapping[str, int]
    leaks: LeakReport
    warnings: tuple[str, ...]
    """What may be meant, and often is a mistake; ``leaks`` has its own."""
    baselines: Baselines | None = None
    """What simple models reach on the test split, where they were asked for."""

    @property
    def verdict(self) -> str:
        """The result in one line."""
        count = len(self.warnings) + len(self.leaks.warnings)
        return f"every row can be read and encoded; {count or 'no'} warning{'' if count == 1 else 's'}"

    def to_json(self) -> dict[str, Any]:
        """Everything as data."""
        return {**asdict(self), "leaks": self.leaks.to_json(), "verdict": self.verdict}


def check_data(config: ExperimentConfig, *, cache_dir: Path, with_baselines: bool = False) -> DataCheck:
    """Learn the encoder from the training split, encode every row of every split, and look for leaks.

    Args:
        cache_dir: where CSV files are converted, unless the config says otherwise.
        with_baselines: whether to train simple models, and to warn of tasks that they do not predict.

    Raises:
        DataError, SchemaError: what training would stop at, with file, column and row.
    """
    tasks = config.task_set()
    streams = {
        split: config.data.build(split, seed=config.seed, cache_dir=cache_dir)
        for split in SPLITS
        if getattr(config.data, split)
    }
    encoder = learn_encoder(config, streams["train"], scratch=cache_dir / "scratch")
    checks = {split: count_split(config, stream, encoder, tasks) for split, stream in streams.items()}
    table_rows = {table.name: table.num_rows for table in encoder.layout.tables}
    leaks = find_leaks(config, streams["train"])
    warnings = list(check_warnings(config, checks))
    baselines = None
    if with_baselines and "test" in streams:
        baselines, _, _ = learn_baselines(config, streams, encoder)
        warnings += chance_warnings(baselines, tasks)
    return DataCheck(checks, table_rows, leaks, tuple(warnings), baselines)
