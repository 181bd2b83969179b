"""The linear part in a warm start: vectors go on by place, weights of towers by name, and so does what learned them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.growth.carry import check_rate
from recmoe.growth.earlier import WarmStart
from recmoe.model import LinearWideConfig, NoWideConfig
from recmoe.runs.facts import RunFacts
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import step_folder

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]
StoredTensor = Callable[[Path, str], Tensor]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
NEW_TASK = "tasks.late={kind: binary, label: click}"
ADAGRAD = "tables.optimizer={kind: adagrad, lr: 0.1}"
ADAM = "tables.optimizer={kind: adam, lr: 0.01}"
FEW = "training.max_steps=6"
TINY = 1e-25


def reordered(config: ExperimentConfig, *names: str) -> ExperimentConfig:
    """The same tasks in another order, or some of them."""
    return config.model_copy(update={"tasks": {name: config.tasks[name] for name in names}})


def predictions(run: Path, rows: pa.Table, *tasks: str) -> np.ndarray:  # type: ignore[type-arg]
    bundle = ModelBundle.load(run / "bundle")
    return bundle.predict(rows)[:, [bundle.tasks.names.index(task) for task in tasks]]


@pytest.mark.parametrize(("optimizer", "slots"), [(ADAGRAD, ["sum"]), (ADAM, ["exp_avg", "exp_avg_sq"])])
def test_weights_and_state_of_towers_go_on_by_name(
    optimizer: str,
    slots: list[str],
    train: Train,
    make_experiment: ExperimentMaker,
    stored_tensor: StoredTensor,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    earlier = train(make_experiment(tmp_path, optimizer, FEW), tmp_path / "earlier").folder
    config = make_experiment(tmp_path, optimizer, *NO_STEPS, NEW_TASK)
    config = reordered(config, "late", "cvr", "ctr")

    folder = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier.root))).folder

    before, after = step_folder(earlier.checkpoints, 6), step_folder(folder.checkpoints, 1)
    old, new = (stored_tensor(checkpoint, "tables/item_id") for checkpoint in (before, after))
    # Vectors of 4, then ctr and cvr; now late, cvr and ctr.
    assert (new[:, :4] - old[:, :4]).abs().max() < TINY
    assert (new[:, [6, 5]] - old[:, [4, 5]]).abs().max() < TINY
    assert old[:, [4, 5]].count_nonzero() > 0
    assert new[:, [4, 7]].abs().max() < TINY
    for slot in slots:
        states = [stored_tensor(checkpoint, f"table_optimizer/item_id/{slot}") for checkpoint in (before, after)]
        # The one step of eight rows has touched at most eight items.
        is_same_V = (states[1][:, [0, 1, 2, 3, 6, 5]] == states[0][:, :6]).all(dim=1)
        assert int((~is_same_V).sum()) <= 9
        assert states[0][is_same_V].count_nonzero() > 0
        assert (states[1][is_same_V][:, [4, 7]] == 0).all()
    report = folder.warm_start_report()
    assert report is not None
    assert report["has_dense_optimizer"]
    assert {"start_T", "unit_T", "input_layer.wide.shared"} <= set(report["dense_partly"])
    kept = predictions(folder.root, shop_log, "ctr", "cvr")
    assert np.abs(kept - predictions(earlier.root, shop_log, "ctr", "cvr")).max() < 1e-6


def test_new_task_begins_at_its_base_rate_and_kept_ones_where_they_were(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *NO_STEPS, NEW_TASK)

    folder = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier_run))).folder

    late = predictions(folder.root, shop_log, "late")
    clicks = shop_log["click"].to_numpy().sum()
    assert np.abs(late - (clicks + 0.5) / (len(shop_log) + 1)).max() < 1e-6
    old, new = (ModelBundle.load(run / "bundle").model for run in (earlier_run, folder.root))
    assert torch.equal(new.start_T[:2], old.start_T)
    assert float(new.start_T[2]) == pytest.approx(RunFacts.read(folder).starts[2].logit)


def test_logits_of_a_task_go_on_by_what_they_mean(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    late = "tasks.late={{kind: quantile, label: visit, quantiles: [{}], predicts: 0.5}}"
    long = "tasks.long={{kind: regression, label: visit, transform: log1p, predicts: {}}}"
    earlier = make_experiment(tmp_path, FEW, late.format("0.5, 0.9"), long.format("median"))
    train(earlier, tmp_path / "earlier")
    config = make_experiment(tmp_path, *NO_STEPS, late.format("0.1, 0.5, 0.9"), long.format("mean"))

    folder = train(config, tmp_path / "run", warm_start=find_warm_start(str(tmp_path / "earlier"))).folder

    # The served quantile and its way to 0.9 go on; the way from 0.1 is new, and so is the mean beside the median.
    old, new = (ModelBundle.load(run / "bundle").model for run in (tmp_path / "earlier", folder.root))
    assert old.tasks.logit_names == ("ctr", "cvr", "late.0.5", "late.0.5-0.9", "long")
    assert new.tasks.logit_names == ("ctr", "cvr", "late.0.5", "late.0.1-0.5", "late.0.5-0.9", "long", "long.mean")
    assert torch.equal(new.start_T[[2, 4, 5]], old.start_T[[2, 3, 4]])
    weights = [model.state_dict()["model.towers.2.layers.2.weight"] for model in (old, new)]
    torch.testing.assert_close(weights[1][[0, 2]], weights[0], rtol=0, atol=TINY)
    assert weights[1][1].abs().max() < TINY
    tables = [model.state_dict()["input_layer.tables.tables.item_id"] for model in (old, new)]
    assert (tables[1][:, [6, 8, 9]] - tables[0][:, [6, 7, 8]]).abs().max() < TINY
    assert (
        np.abs(predictions(folder.root, shop_log, "late") - predictions(tmp_path / "earlier", shop_log, "late")).max()
        < 1e-4
    )


def test_dropped_task_leaves_the_others_theirs(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config = reordered(make_experiment(tmp_path, *NO_STEPS, "ranking.scores={p: ctr}"), "ctr")

    train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier_run)))

    old, new = (ModelBundle.load(run / "bundle").model for run in (earlier_run, tmp_path / "run"))
    weights = [model.state_dict()["input_layer.tables.tables.item_id"] for model in (old, new)]
    assert (weights[1][:, :5] - weights[0][:, :5]).abs().max() < TINY
    assert torch.equal(new.start_T, old.start_T[:1])


@pytest.mark.parametrize("optimizer", ["tables.optimizer={kind: rowwise_adagrad, lr: 0.1}", ADAGRAD])
def test_linear_part_comes_and_goes_and_vectors_stay(
    optimizer: str,
    train: Train,
    make_experiment: ExperimentMaker,
    stored_tensor: StoredTensor,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    none = "model.wide={kind: none}"
    first = train(make_experiment(tmp_path, optimizer, FEW, none), tmp_path / "first").folder

    on = train(
        make_experiment(tmp_path, optimizer, *NO_STEPS),
        tmp_path / "on",
        warm_start=find_warm_start(str(first.root)),
    ).folder
    off = train(
        make_experiment(tmp_path, optimizer, *NO_STEPS, none),
        tmp_path / "off",
        warm_start=find_warm_start(str(on.root)),
    ).folder

    tables = [
        stored_tensor(step_folder(run.checkpoints, step), "tables/item_id")
        for run, step in ((first, 6), (on, 1), (off, 1))
    ]
    assert [table.shape[1] for table in tables] == [4, 8, 4]
    assert (tables[1][:, :4] - tables[0]).abs().max() < TINY
    assert tables[1][:, 4:].abs().max() < TINY
    assert (tables[2] - tables[0]).abs().max() < TINY
    # A linear part that has learned nothing changes no prediction.
    names = ("ctr", "cvr", "ctcvr")
    assert np.abs(predictions(on.root, shop_log, *names) - predictions(first.root, shop_log, *names)).max() < 1e-6
    report = on.warm_start_report()
    assert report is not None
    assert sorted(report["dense_new"]) == ["input_layer.wide.own", "input_layer.wide.shared"]
    assert all(table["has_optimizer"] and table["new"] == 0 for table in report["tables"].values())


def test_other_rate_is_refused_before_launch(
    train: Train, make_experiment: ExperimentMaker, earlier_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "model.wide={kind: linear, rate: 2}")
    start = find_warm_start(str(earlier_run))

    with pytest.raises(TrainingError, match=r"model\.wide\.rate is 1 in .*run and 2 here, .*set it to the old one, or"):
        train(config, tmp_path / "run", warm_start=start)

    assert not RunFolder(tmp_path / "run").encoder.exists()
    check_same(start)


def check_same(start: WarmStart) -> None:
    """Neither the same rate nor a part that begins or ends is refused."""
    earlier = start.open()
    check_rate(earlier, LinearWideConfig())
    check_rate(earlier, NoWideConfig())
    earlier.close()
