"""A run that goes on from an earlier model: its predictions before the first step, and what is carried where."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recmoe.errors import BundleError, CheckpointError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.prepare import prepare_run
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import step_folder

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]
StoredTensor = Callable[[Path, str], Tensor]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
"""A single step that moves nothing."""


def predictions(run: Path, rows: pa.Table) -> np.ndarray[Any, Any]:
    return ModelBundle.load(run / "bundle").predict(rows)


@pytest.mark.parametrize("source", ["checkpoint", "bundle"])
def test_same_config_and_data_begin_with_the_same_predictions(
    source: str, train: Train, make_experiment: ExperimentMaker, earlier_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    start = find_warm_start(str(earlier_run if source == "checkpoint" else earlier_run / "bundle"))

    result = train(make_experiment(tmp_path, *NO_STEPS), tmp_path / "run", warm_start=start)

    assert np.array_equal(predictions(tmp_path / "run", shop_log), predictions(earlier_run, shop_log))
    report = result.folder.warm_start_report()
    assert report is not None
    assert {name: table["new"] for name, table in report["tables"].items()} == dict.fromkeys(report["tables"], 0)
    assert (report["dense_partly"], report["dense_new"], report["features_new"]) == ([], [], [])
    assert report["has_dense_optimizer"] == (source == "checkpoint")


NEW_FEATURES = (
    "inputs.features.brand={kind: id, side: context}",
    "inputs.features.weight={kind: numeric, side: item, forms: [value, vector]}",
)
NEW_TASK = ("tasks.late={kind: binary, label: late}",)


def write_grown(log: pa.Table, folder: Path) -> pa.Table:
    """The log with two columns and a label more, and ten rows of five items that are new."""
    num_new = 10
    late = log.slice(0, num_new).set_column(
        log.column_names.index("item_id"), "item_id", pa.array([900, 901, 902, 903, 904] * 2)
    )
    grown = pa.concat_tables([log, late])
    numbers = np.arange(grown.num_rows)
    grown = grown.append_column("brand", pa.array([f"b{i % 7}" for i in numbers]))
    grown = grown.append_column("weight", pa.array(numbers % 11 / 3))
    grown = grown.append_column("late", pa.array(numbers % 2))
    folder.mkdir()
    for name in ("train", "validation", "test"):
        pq.write_table(grown, folder / f"{name}.parquet")
    return grown


ARCHITECTURES = [
    ("{kind: mmoe, num_experts: 3, expert_hidden: [8]}", NEW_TASK),
    ("{kind: mmoe, num_experts: 3, expert_hidden: [8], gate: {kind: top_k, k: 2}}", NEW_TASK),
    ("{kind: cgc, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}", NEW_TASK),
    # The shared gate of the first level mixes the experts of all tasks: there a new task changes the others.
    ("{kind: ple, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}", ()),
    ("{kind: omoe, num_experts: 3, expert_hidden: [8]}", NEW_TASK),
    ("{kind: shared_bottom, hidden: [8]}", NEW_TASK),
    ("{kind: single_task, hidden: [8]}", NEW_TASK),
    ("{kind: home, expert_hidden: [8], feature_rank: 4}", NEW_TASK),
    # A gate sees the experts of all tasks, those of a new one too.
    ("{kind: adatt, num_levels: 1, expert_hidden: [8]}", ()),
    # A unit mixes the networks of all tasks: there a new task changes the others.
    ("{kind: cross_stitch, hidden: [8]}", ()),
]


@pytest.mark.parametrize(("architecture", "task"), ARCHITECTURES)
def test_what_is_new_changes_no_prediction_before_it_has_learnt(
    architecture: str,
    task: tuple[str, ...],
    train: Train,
    make_experiment: ExperimentMaker,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    small = (f"model.architecture={architecture}", "training.max_steps=5")
    earlier = train(make_experiment(tmp_path, *small), tmp_path / "earlier").folder.root
    grown = write_grown(shop_log, tmp_path / "grown")
    config = make_experiment(tmp_path / "grown", *small, *NO_STEPS, *NEW_FEATURES, *task)

    result = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier)))

    now = predictions(tmp_path / "run", grown.slice(0, shop_log.num_rows))
    assert np.abs(now[:, :3] - predictions(earlier, shop_log)).max() < 1e-6
    report = result.folder.warm_start_report()
    assert report is not None
    assert (sorted(report["features_new"]), report["features_dropped"]) == (["brand", "weight"], [])
    tables = {name: (table["kept"], table["new"], table["dropped"]) for name, table in report["tables"].items()}
    assert tables["item_id"] == (30, 5, 0)
    assert tables["brand"] == (0, 8, 0)
    assert report["has_dense_optimizer"]


def test_features_that_are_gone_leave_the_others_their_weights(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *NO_STEPS)
    features = {name: feature for name, feature in config.inputs.features.items() if name not in ("hour", "item_id")}
    config = config.model_copy(update={"inputs": config.inputs.model_copy(update={"features": features})})

    result = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier_run)))

    report = result.folder.warm_start_report()
    assert report is not None
    assert (report["features_new"], report["features_dropped"]) == ([], ["hour", "item_id"])
    assert (report["dropped_tables"], report["dense_partly"], report["dense_new"]) == (["item_id"], [], [])
    old, new = (ModelBundle.load(run / "bundle").model for run in (earlier_run, tmp_path / "run"))
    # x_BD: user_id, tags, age's bucket; age, hour; age's vector | words, item_id; price; price's vector.
    kept = [*range(13), *range(14, 22), *range(26, 31)]
    # The linear part knows age and hour on the one side, the price on the other; hour is gone.
    numbers = [model.input_layer.wide.get_parameter("shared") for model in (old, new)]
    assert torch.equal(numbers[1], numbers[0][:, :1])
    gates = [model.state_dict()["model.architecture.layer.gates.0.weight_VD"] for model in (old, new)]
    assert torch.equal(gates[1], gates[0][:, kept])


def test_optimizers_go_on_where_they_were(
    train: Train,
    make_experiment: ExperimentMaker,
    earlier_run: Path,
    shop_log: pa.Table,
    stored_tensor: StoredTensor,
    tmp_path: Path,
) -> None:
    write_grown(shop_log, tmp_path / "grown")
    config = make_experiment(tmp_path / "grown", *NO_STEPS, *NEW_FEATURES)

    folder = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier_run))).folder

    old = step_folder(RunFolder(earlier_run).checkpoints, 25)
    new = step_folder(folder.checkpoints, 1)
    assert stored_tensor(old, "dense_optimizer/ranker.model.towers.0.layers.0.bias/step") == 25
    assert stored_tensor(new, "dense_optimizer/ranker.model.towers.0.layers.0.bias/step") == 26
    # A new vector of a number has stepped once.
    assert stored_tensor(new, "dense_optimizer/ranker.input_layer.own_vectors.maps.1.bias/step") == 1
    sums = [stored_tensor(checkpoint, "table_optimizer/item_id/sum") for checkpoint in (old, new)]
    assert (sums[1][1:30] >= sums[0][1:30]).all()
    assert (sums[0][1:30] > 0).all()
    # One batch of eight rows cannot hold more than eight ids.
    assert int((sums[1][1:30] != sums[0][1:30]).sum()) <= 8


def test_other_width_is_refused_before_launch(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "inputs.features.item_id.width=8")

    with pytest.raises(TrainingError, match=r"table item_id has rows of 4 floats in .*run and of 8 here.*give it the"):
        train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier_run)))


def test_prepared_run_goes_on_with_what_it_was_prepared_for(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config, earlier = make_experiment(tmp_path, *NO_STEPS), find_warm_start(str(earlier_run))
    encoder = prepare_run(config, tmp_path / "run", resume=False, warm_start=earlier)
    written = (tmp_path / "run/encoder/encoder.json").stat().st_mtime_ns

    folder = train(config, tmp_path / "run").folder

    report = folder.warm_start_report()
    assert report is not None
    assert report["dense_new"] == []
    assert (folder.encoder / "encoder.json").stat().st_mtime_ns == written
    assert ModelBundle.load(folder.bundle).encoder.fingerprint == encoder.fingerprint


def test_run_remembers_what_it_began_from(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "training.max_steps=2")
    start = find_warm_start(str(earlier_run))
    train(config, tmp_path / "run", warm_start=start)

    again = train(config, tmp_path / "run", resume=True, warm_start=start)

    assert again.folder.state["warm_start"]["source"] == str(earlier_run)
    with pytest.raises(TrainingError, match=r"run began from .*run, not from .*bundle; resume it without --warm-start"):
        train(config, tmp_path / "run", resume=True, warm_start=find_warm_start(str(earlier_run / "bundle")))


def test_run_without_checkpoints_gives_its_bundle(earlier_run: Path, tmp_path: Path) -> None:
    shutil.copytree(earlier_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")

    start = find_warm_start(str(tmp_path / "run"))

    assert (start.root, start.checkpoint) == (tmp_path / "run" / "bundle", None)


def test_unfinished_run_is_no_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start({"name": "shop"}, resume=False)
    folder.update_state(status="interrupted")

    with pytest.raises(TrainingError, match=r"is interrupted and has no bundle yet; go on with --resume"):
        find_warm_start(str(tmp_path / "run"))


@pytest.mark.parametrize("part", ["checkpoints", "bundle"])
def test_damaged_source_is_refused_before_launch(
    part: str, train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(earlier_run, tmp_path / "earlier")
    source = tmp_path / "earlier" if part == "checkpoints" else tmp_path / "earlier" / "bundle"
    victim = next((tmp_path / "earlier" / part).rglob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")

    with pytest.raises((CheckpointError, BundleError), match=r"is damaged: its (hash differs|content has changed)"):
        train(make_experiment(tmp_path), tmp_path / "run", warm_start=find_warm_start(str(source)))
