"""A bundle holds all that serving needs, and is refused where it is not what was written."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from recmoe.embeddings.tables import PlainTables
from recmoe.errors import BundleError
from recmoe.evaluation.report import Report
from recmoe.export.bundle import ModelBundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.stored import with_stored_tasks


def test_loaded_bundle_predicts_as_the_model_it_was_made_of(
    bundle: ModelBundle, shop_model: MultiTaskRanker, shop_encoder: FeatureEncoder, shop_log: pa.Table
) -> None:
    with torch.inference_mode():
        expected = shop_model.predict(shop_encoder.encode(shop_log, with_labels=False))

    np.testing.assert_allclose(bundle.predict(shop_log), expected.numpy(), atol=1e-6)
    assert bundle.name == "shop"
    assert bundle.tasks.names == ("ctr", "cvr", "ctcvr")
    assert bundle.config["seed"] == 3
    assert bundle.report is not None
    assert bundle.report.value("cvr.auc[click]") == 0.75
    assert bundle.replay.rows.num_rows == 40
    assert not bundle.model.training


def test_bundle_of_a_version_without_means_predicts_medians_as_it_did(
    shop_config: dict[str, Any], shop_log: pa.Table, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    long = {"kind": "regression", "label": "visit", "transform": "log1p"}
    stored = {**shop_config, "tasks": {**shop_config["tasks"], "long": long}}
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(with_stored_tasks(stored)["tasks"]))
    encoder = FeatureEncoder.fit(FeatureSchema.model_validate(shop_config["inputs"]), [shop_log], tasks.label_columns)
    model = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=ModelConfig.model_validate(shop_config["model"]),
        tables=PlainTables,
    ).eval()
    with torch.inference_mode():
        expected = model.predict(encoder.encode(shop_log, with_labels=False)).numpy()
    replay = Replay.capture(shop_log, encoder=encoder, task_names=tasks.names, predictions_NT=expected)

    path = make_bundle(tmp_path / "old", config=stored, encoder=encoder, model=model, replay=replay)

    loaded = ModelBundle.load(path)
    loaded.check_replay()
    assert tasks.logit_names == ("ctr", "cvr", "long")
    assert loaded.config["tasks"]["long"]["predicts"] == "median"
    np.testing.assert_array_equal(loaded.predict(shop_log), expected)


def test_mean_predictions_are_those_of_the_test_split_or_of_the_replay(
    make_bundle: Callable[..., Path], bundle: ModelBundle, tmp_path: Path
) -> None:
    report = Report((), 200, 0, mean_predictions={"cvr": 0.07})

    recorded = ModelBundle.load(make_bundle(tmp_path / "recorded", report=report)).mean_predictions

    # The report of the other bundle is one of an earlier version.
    of_replay = dict(zip(bundle.replay.task_names, bundle.replay.predictions_NT.mean(axis=0), strict=True))
    assert bundle.mean_predictions == pytest.approx(of_replay)
    assert recorded == pytest.approx({**of_replay, "cvr": 0.07})


def test_bundle_holds_no_pickle(bundle_path: Path) -> None:
    suffixes = {path.suffix for path in bundle_path.rglob("*") if path.is_file()}

    assert suffixes <= {".json", ".parquet", ".arrow", ".safetensors"}
    for path in bundle_path.rglob("*"):
        assert path.is_dir() or not path.read_bytes().startswith((b"\x80", b"PK")), path


def test_replay_keeps_raw_columns_and_no_labels(bundle: ModelBundle, shop_log: pa.Table) -> None:
    rows = bundle.replay.rows

    assert "click" not in rows.column_names
    assert rows["tags"].to_pylist() == shop_log["tags"].to_pylist()[:40]


def test_equal_models_have_equal_digests(bundle: ModelBundle, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    again = ModelBundle.load(make_bundle(tmp_path / "again"))

    assert again.digest == bundle.digest


def test_small_file_limit_changes_the_files_and_not_the_scores(
    bundle: ModelBundle, make_bundle: Callable[..., Path], tmp_path: Path, shop_log: pa.Table
) -> None:
    path = make_bundle(tmp_path / "small", max_file_bytes=64)

    small = ModelBundle.load(path)

    assert len(list((path / "tables").iterdir())) > len(bundle.encoder.layout.tables)
    np.testing.assert_array_equal(small.predict(shop_log), bundle.predict(shop_log))


def test_existing_folder_is_not_overwritten(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    with pytest.raises(BundleError, match="data exists already; choose another folder, or replace the bundle in it"):
        make_bundle(tmp_path / "data", replace=True)


def test_older_bundle_is_replaced_on_request(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    make_bundle(tmp_path / "shop", name="old")

    make_bundle(tmp_path / "shop", name="new", replace=True)

    assert ModelBundle.load(tmp_path / "shop").name == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_model_that_differs_from_its_replay_is_not_written(
    make_bundle: Callable[..., Path], bundle: ModelBundle, tmp_path: Path
) -> None:
    replay = Replay(
        bundle.replay.rows, bundle.replay.task_names, bundle.replay.predictions_NT + 0.01, bundle.replay.encoded
    )

    with pytest.raises(BundleError, match="replay: task ctr differs from the training model"):
        make_bundle(tmp_path / "shop", replay=replay)

    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_named(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BundleError, match=r"shop could not be written: .*; nothing was left there"):
        make_bundle(tmp_path / "file" / "shop")


@pytest.mark.parametrize("name", ["dense.safetensors", "config.json", "replay.parquet", "tables.json"])
def test_damaged_file_is_named(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)

    with pytest.raises(BundleError, match=rf"{name} is damaged: its content has changed"):
        ModelBundle.load(copied)


def test_config_of_another_version_is_refused(copied: Path, sign: Callable[[Path], None]) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["model"]["architecture"]["kind"] = "star"
    (copied / "config.json").write_text(json.dumps(config))
    sign(copied)

    with pytest.raises(BundleError, match=r"config\.json does not fit this version of recmoe"):
        ModelBundle.load(copied)


def test_encoder_of_another_schema_is_refused(
    copied: Path, sign: Callable[[Path], None], shop_log: pa.Table, shop_config: dict[str, Any]
) -> None:
    schema = FeatureSchema.model_validate({**shop_config["inputs"], "seed": 9})
    shutil.rmtree(copied / "encoder")
    (copied / "encoder").mkdir()
    FeatureEncoder.fit(schema, [shop_log]).save(copied / "encoder")
    sign(copied)

    with pytest.raises(BundleError, match="holds an encoder of another schema than the model was trained with"):
        ModelBundle.load(copied)


def test_replay_that_cannot_be_read_is_refused(copied: Path, sign: Callable[[Path], None]) -> None:
    (copied / "replay.parquet").write_bytes(b"PAR1")
    sign(copied)

    with pytest.raises(BundleError, match="its replay cannot be read"):
        ModelBundle.load(copied)


def test_report_that_cannot_be_read_is_refused(copied: Path, sign: Callable[[Path], None]) -> None:
    (copied / "report.json").write_text("{}")
    sign(copied)

    with pytest.raises(BundleError, match="does not fit this version of recmoe: not a report of recmoe"):
        ModelBundle.load(copied)


@pytest.mark.parametrize("max_bytes", [100, 1000, 4000])
def test_full_disk_leaves_the_older_bundle(make_bundle: Callable[..., Path], tmp_path: Path, max_bytes: int) -> None:
    path = make_bundle(tmp_path / "shop", name="old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    # Files beyond a size fail to be written, as all do on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, before[1]))
    try:
        with pytest.raises(BundleError, match=r"shop could not be written: .*; nothing was left there"):
            make_bundle(path, name="new", replace=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert ModelBundle.load(path).name == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["shop"]
