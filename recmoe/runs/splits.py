"""Splits: the rows of a run, opened once, and the batches that are made of them."""

import torch

from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.loader import BatchLoader, Split
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoded import open_cache
from recmoe.runs.folder import RunFolder
from recmoe.runs.teacher import teacher_rows
from recmoe.training.runtime import Runtime

CORES_PER_ENCODER = 4
"""One thread of that many encodes, where rows are not encoded before."""


class Splits:
    """The splits of a run as one rank reads them."""

    def __init__(
        self, config: ExperimentConfig, folder: RunFolder, *, encoder: FeatureEncoder, runtime: Runtime
    ) -> None:
        self._config = config
        self._folder = folder
        self._encoder = encoder
        self._runtime = runtime
        self._streams: dict[Split, ParquetStream] = {}
        self._encoded_rows: dict[Split, EncodedRows | None] = {}

    def stream(self, split: Split) -> ParquetStream:
        """The raw rows of a split."""
        # Opened once: where damaged rows are skipped, opening reads everything.
        if split not in self._streams:
            self._streams[split] = open_split(self._config, self._folder, split)
        return self._streams[split]

    def loader(self, split: Split, *, batch_size: int) -> BatchLoader:
        """Batches of this rank's rows."""
        return BatchLoader(
            self.stream(split),
            self._encoder,
            batch_size=batch_size,
            rank=self._runtime.rank,
            world_size=self._runtime.world_size,
            device=self._runtime.device,
            # The model needs the other cores.
            num_threads=max(1, torch.get_num_threads() // CORES_PER_ENCODER),
            encoded=self._encoded(split),
        )

    def _encoded(self, split: Split) -> EncodedRows | None:
        """The split as ``prepare`` has encoded it; None where it has not, or on a machine that cannot see it."""
        if split not in self._encoded_rows and self._config.data.encoded_cache != "off":
            cache = open_cache(self._config, self._folder, self._encoder)
            rows = cache.open(self.stream(split))
            teacher_NZ = teacher_rows(self._folder) if split == "train" else None
            if rows is not None and teacher_NZ is not None:
                rows = rows.taught_by(teacher_NZ)
            self._encoded_rows[split] = rows
        return self._encoded_rows.get(split)


def open_split(config: ExperimentConfig, folder: RunFolder, split: Split) -> ParquetStream:
    """The rows of a split; CSV files are converted beside the run."""
    return config.data.build(split, seed=config.seed, cache_dir=folder.cache)
