"""ModelBundle: all that serving needs of a trained model, in one folder, without pickle.

manifest.json            what it is, and size and hash of every other file
config.json              the resolved config of the run
encoder/                 vocabularies and statistics
dense.safetensors        experts, gates, towers, numeric vectors
tables.json  tables/     embedding tables, in files below a size limit, named by their content
report.json              metrics of the test split, where there was one
lineage.json             the model that this one was made from, where there was one
replay*                  raw rows, their encoding, the training model's predictions
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recmoe import __version__
from recmoe.errors import BundleError, DataError, EvaluationError, SchemaError
from recmoe.evaluation.report import Report
from recmoe.export.contents import CONFIG, ENCODER, MANIFEST, REPLAY_ROWS, REPORT
from recmoe.export.lineage import Lineage
from recmoe.export.manifest import Manifest, digest_of, list_files
from recmoe.export.replay import Replay
from recmoe.export.stored_model import read_config, refusing, stored_model
from recmoe.export.weights import write_weights
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import MultiTaskRanker
from recmoe.plugins import installed_version, packages_of
from recmoe.tasks.funnel import TaskSet

T = TypeVar("T")

_logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 512 * 2**20
"""Larger uploads time out or are refused by registries and the proxies before them."""


@dataclass(frozen=True)
class ModelBundle:
    """A bundle in memory: model in evaluation mode, over plain tables."""

    name: str
    digest: str
    created_at: str
    """UTC, ISO 8601."""
    config: Mapping[str, Any]
    """The run's whole config."""
    encoder: FeatureEncoder
    tasks: TaskSet
    model: MultiTaskRanker
    report: Report | None
    replay: Replay
    lineage: Lineage | None = None

    @classmethod
    def load(cls, path: Path) -> "ModelBundle":
        """Read a bundle, after comparing every file with its hash.

        Raises:
            BundleError: a file is missing or damaged (named), it is of another format or schema, or a package that it
                is made of is not installed.
        """
        manifest = Manifest.read(path)
        manifest.verify(path)
        _check_packages(path, manifest.packages)
        config, sections = read_config(path)
        encoder = _read(path / ENCODER, FeatureEncoder.load)
        report_path = path / REPORT
        report = _read(report_path, lambda file: Report.from_json(file.read_bytes())) if report_path.exists() else None
        if encoder.fingerprint != manifest.schema_fingerprint or encoder.schema != sections.inputs:
            raise BundleError(
                f"{path} holds an encoder of another schema than the model was trained with; export it again"
            )
        tasks, model = stored_model(path, sections, layout=encoder.layout)
        replay = Replay.load(path)
        if not replay.task_names == manifest.tasks == tasks.names:
            raise BundleError(
                f"{path}: its replay is of the tasks {', '.join(replay.task_names)}, its config has "
                f"{', '.join(tasks.names)}; export it again"
            )
        return cls(
            name=manifest.name,
            digest=manifest.digest,
            created_at=manifest.created_at,
            config=config,
            encoder=encoder,
            tasks=tasks,
            model=model,
            report=report,
            replay=replay,
            lineage=Lineage.read(path),
        )

    def predict(self, rows: pa.Table) -> NDArray[np.float32]:
        """predictions_NT of flat rows that hold the columns of all sides."""
        with torch.inference_mode():
            predictions_NT = self.model.predict(self.encoder.encode(rows, with_labels=False))
        result: NDArray[np.float32] = predictions_NT.numpy()
        return result

    @property
    def mean_predictions(self) -> dict[str, float]:
        """The mean prediction of each task in training: over the test split, or over the replay where a bundle has no
        report, or one of an earlier version, which did not record it.
        """
        means_T = self.replay.predictions_NT.mean(axis=0).tolist()
        recorded = {} if self.report is None else self.report.mean_predictions
        of_replay = zip(self.replay.task_names, means_T, strict=True)
        return {name: recorded.get(name, mean) for name, mean in of_replay}

    def check_replay(self) -> None:
        """Score the replay rows again.

        Raises:
            BundleError: a feature is encoded differently, or a task scored differently than in training.
        """
        with refusing(Path(REPLAY_ROWS), "cannot be scored"):
            try:
                batch = self.encoder.encode(self.replay.rows, with_labels=False)
            except (DataError, SchemaError) as error:
                raise BundleError(f"replay: its rows cannot be encoded: {error}; export the bundle again") from error
            self.replay.check_features(batch, self.encoder.layout)
            with torch.inference_mode():
                self.replay.check_predictions(self.model.predict(batch).numpy())


def check_free(path: Path, *, replace: bool = False) -> None:
    """BundleError where something stands in the place of a bundle to write; for what takes long before it writes.

    Args:
        replace: an older bundle may be there.
    """
    if path.exists() and not (replace and (path / MANIFEST).is_file()):
        raise BundleError(f"{path} exists already; choose another folder, or replace the bundle in it")


def write_bundle(
    path: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    encoder: FeatureEncoder,
    model: MultiTaskRanker,
    replay: Replay,
    report: Report | None = None,
    lineage: Lineage | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    replace: bool = False,
) -> ModelBundle:
    """Write a bundle, read it back, replay it, and only then give it its name.

    Args:
        path: the folder to make.
        config: the run's resolved config, as JSON would hold it.
        model: over plain tables.
        replay: rows with the predictions of the model as it was trained.
        lineage: the model that this one was made from.
        max_file_bytes: limit of the files that hold tables.
        replace: give up an older bundle of that path.

    Raises:
        BundleError: something else stands there, the disk is full, or the model's scores are not the replay's.
    """
    check_free(path, replace=replace)
    with _new_folder(path) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / ENCODER).mkdir()
        encoder.save(folder / ENCODER)
        write_weights(model, folder, max_file_bytes=max_file_bytes)
        replay.save(folder)
        if report is not None:
            (folder / REPORT).write_text(report.to_json(), encoding="utf-8")
        if lineage is not None:
            lineage.write(folder)
        files = list_files(folder)
        manifest = Manifest(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            recmoe_version=__version__,
            schema_fingerprint=encoder.fingerprint,
            tasks=replay.task_names,
            digest=digest_of(files),
            files=files,
            packages=packages_of(config),
        )
        manifest.write(folder)
        bundle = ModelBundle.load(folder)
        bundle.check_replay()
    return bundle


def _read(path: Path, read: Callable[[Path], T]) -> T:
    """A part of a bundle; BundleError with its path where it is none that this version reads."""
    with refusing(path, "does not fit this version of recmoe"):
        try:
            return read(path)
        except (DataError, SchemaError, EvaluationError) as error:
            raise BundleError(f"{path} does not fit this version of recmoe: {error}") from error


def _check_packages(path: Path, packages: Mapping[str, str]) -> None:
    """What a bundle is made of is installed; another version is left to the replay, and said."""
    for package, version in packages.items():
        installed = installed_version(package)
        if installed is None:
            raise BundleError(
                f"{path} is made of parts of {package} {version}, which is not installed: pip install "
                f"{package}=={version}"
            )
        if installed != version:
            _logger.warning("%s was made with %s %s, and %s is installed", path, package, version, installed)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder under a temporary name, renamed to ``path`` at the end, or removed if that is not reached."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.rename(temporary, path)
    except OSError as error:
        raise BundleError(
            f"{path} could not be written: {error.strerror or error}; "
            "nothing was left there: free some space or mend the cause, then do it again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
