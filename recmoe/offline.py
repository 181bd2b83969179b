"""Offline evaluation: a model from the registry, a bundle or a run, scored on any files."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from recmoe.config import config_from_dict
from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.errors import BundleError
from recmoe.evaluation.predict import Scored, predict_rows
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.run_folder import RunFolder


def load_model(source: str, *, registry_folder: Path) -> ModelBundle:
    """The bundle behind ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a bundle's folder or a run's.

    Raises:
        BundleError, RegistryError: there is none, or it is damaged.
    """
    if source.startswith("models:"):
        # MLflow takes seconds to import, and a folder needs none of it.
        from recmoe.registry.registry import Registry

        found = Registry.connect(folder=registry_folder).resolve(source, cache=registry_folder / "cache")
        return ModelBundle.load(found.path)
    path = Path(source)
    if not path.is_dir():
        raise BundleError(f"{source} is neither a folder nor a model of the registry (models:/NAME@champion)")
    run = RunFolder(path)
    return ModelBundle.load(run.bundle if run.config.exists() and run.bundle.exists() else path)


def config_of(bundle: ModelBundle) -> ExperimentConfig:
    """The config of the run that made a bundle."""
    return config_from_dict(ExperimentConfig, bundle.config, source=f"config of {bundle.name}")


def score_files(
    bundle: ModelBundle, paths: Sequence[str], *, slices: Sequence[str] = (), batch_size: int = 16_384
) -> Scored:
    """Every row of some Parquet and CSV files through the model, with labels and the use of the experts.

    Args:
        paths: files, folders or globs.
        slices: raw columns to keep beside the predictions, to cut metrics by.

    Raises:
        DataError, SchemaError: what the files lack.
    """
    with tempfile.TemporaryDirectory() as cache:
        stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=Path(cache))
        return predict_rows(bundle.model, BatchLoader(stream, bundle.encoder, batch_size=batch_size), slices=slices)
