"""keep_splits(): a run's splits encoded once before training, where that is worth the disk."""

import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.loader import Split
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoder import keep_rows
from recmoe.runs.folder import ENCODED, RunFolder
from recmoe.runs.teacher import taught_tasks

_logger = logging.getLogger(__name__)

DISK_SHARE = 0.5
"""Of the free disk, what encoded rows may take where nobody has asked for them."""


def open_cache(config: ExperimentConfig, folder: RunFolder, encoder: FeatureEncoder) -> EncodedCache:
    """Where a run's encoded rows are."""
    return EncodedCache(config.data.cache_folder(folder.cache) / ENCODED, encoder)


def keep_splits(
    config: ExperimentConfig,
    folder: RunFolder,
    splits: Mapping[Split, ParquetStream],
    encoder: FeatureEncoder,
    *,
    is_quiet: bool,
) -> bool:
    """Encode every row of some splits and keep what comes out, if ``data.encoded_cache`` says so.

    Every row is checked on the way.

    Raises:
        DataError, SchemaError: as training would find it, with file and row; or the disk is full.
    """
    cache = open_cache(config, folder, encoder)
    # What a teacher says of a row is found by the number of its record.
    if not taught_tasks(folder) and not _is_wanted(config, splits, cache):
        return False
    kept = [keep_rows(stream, encoder, cache, split=split, is_quiet=is_quiet) for split, stream in splits.items()]
    if not is_quiet:
        num_bytes = sum(rows.num_bytes for rows in kept)
        print(f"encoded rows: {num_bytes / 1e6:,.1f} MB in {cache.folder}", file=sys.stderr, flush=True)
    return True


def has_index(config: ExperimentConfig) -> bool:
    """Whether ids are read as row numbers, which learning the encoder does not look at."""
    return any(table.encoding.can_refuse for table in config.inputs.tables().values())


def _is_wanted(config: ExperimentConfig, splits: Mapping[Split, ParquetStream], cache: EncodedCache) -> bool:
    if config.data.encoded_cache != "auto":
        return config.data.encoded_cache == "on"
    training = config.training
    num_rows = splits["train"].num_rows
    num_read = training.epochs * num_rows
    if training.max_steps is not None:
        num_read = min(num_read, training.max_steps * training.batch_size)
    if num_read < num_rows and not has_index(config):
        return False
    num_bytes = sum(cache.num_bytes(stream) for stream in splits.values())
    free_bytes = shutil.disk_usage(_existing(cache.folder)).free
    if num_bytes > DISK_SHARE * free_bytes:
        _logger.warning(
            "%s has %.1f GB free, which is too little for encoded rows of %.1f GB: rows are encoded again in every "
            "epoch; set data.cache_dir to a folder with room, or data.encoded_cache to on",
            cache.folder,
            free_bytes / 1e9,
            num_bytes / 1e9,
        )
        return False
    return True


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())
