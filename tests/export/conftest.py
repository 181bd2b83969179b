"""A bundle that has every kind of file, copies of it to break, and its manifest written anew."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.embeddings.tables import PlainTables
from recmoe.export.lineage import Lineage
from recmoe.export.manifest import Manifest, digest_of, list_files
from recmoe.export.replay import Replay
from recmoe.export.stored_model import ModelSections
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import build_model
from recmoe.tasks.funnel import TaskSet

BundleMaker = Callable[..., Path]


@pytest.fixture
def copied(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle to break."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


@pytest.fixture(scope="session")
def full_bundle_path(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: BundleMaker, shop_config: dict[str, Any], shop_log: pa.Table
) -> Path:
    """A bundle with every kind of file: ids that come and go, hashed ones, a lineage and a report too."""
    config = copy.deepcopy(shop_config)
    config["inputs"]["features"]["user_id"]["encoding"] = {"kind": "dynamic", "capacity": 30}
    config["inputs"]["features"]["item_id"]["encoding"] = {"kind": "hash", "num_buckets": 50}
    sections = ModelSections.model_validate(config)
    tasks = TaskSet(sections.tasks)
    encoder = FeatureEncoder.fit(sections.inputs, [shop_log], tasks.label_columns)
    torch.manual_seed(4)
    model = build_model(layout=encoder.layout, tasks=tasks, config=sections.model, tables=PlainTables).eval()
    rows = shop_log.slice(0, 20)
    with torch.inference_mode():
        predictions_NT = model.predict(encoder.encode(rows, with_labels=False)).numpy()
    return make_bundle(
        tmp_path_factory.mktemp("full") / "shop",
        config=config,
        encoder=encoder,
        model=model,
        replay=Replay.capture(rows, encoder=encoder, task_names=tasks.names, predictions_NT=predictions_NT),
        lineage=Lineage("distil", "models:/shop@champion", "0" * 64),
    )


def sign(path: Path) -> None:
    """Write the manifest of a bundle anew, as somebody would who changed files on purpose."""
    manifest = Manifest.read(path)
    (path / "manifest.json").unlink()
    files = list_files(path)
    Manifest(**{**vars(manifest), "files": files, "digest": digest_of(files)}).write(path)


@pytest.fixture(scope="session", name="sign")
def _sign() -> Callable[[Path], None]:
    return sign
