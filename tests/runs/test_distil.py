"""A student that learns from a teacher: what it reads of it, what it ends with, and how it resumes."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.errors import SchemaError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import find_origin
from recmoe.runs.splits import Splits
from recmoe.runs.teacher import teacher_rows
from recmoe.runs.train import RunResult, remake_bundle
from recmoe.training.runtime import start_runtime

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

DENSE = "model.architecture={kind: shared_bottom, hidden: [8]}"
MIXTURE = "model.architecture={kind: ple, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}"
TEACHER_ALONE = "model.distillation.weight=1000"


@pytest.fixture(scope="module")
def teacher_run(train: Train, make_experiment: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture that has learned the log by heart."""
    folder = tmp_path_factory.mktemp("teacher")
    config = make_experiment(folder, "training.epochs=12", "training.dense_optimizer.lr=0.03")
    return train(config, folder / "run").folder.root


@pytest.fixture(scope="module")
def dense_run(train: Train, make_experiment: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one network for all tasks."""
    folder = tmp_path_factory.mktemp("dense")
    config = make_experiment(folder, "training.epochs=12", "training.dense_optimizer.lr=0.03", DENSE)
    return train(config, folder / "run").folder.root


@pytest.fixture(scope="module")
def student_run(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """One epoch of a small dense student."""
    folder = tmp_path_factory.mktemp("student")
    teacher = find_origin(str(teacher_run), made_by="distil")
    config = make_experiment(folder, DENSE, "evaluation.num_resamples=50")
    return train(config, folder / "run", origin=teacher).folder


def predictions(run: Path, rows: pa.Table) -> np.ndarray[Any, Any]:
    return ModelBundle.load(run / "bundle").predict(rows)


@pytest.mark.parametrize("architecture", [DENSE, MIXTURE], ids=["mixture to dense", "dense to mixture"])
def test_student_follows_its_teacher_where_the_labels_say_the_opposite(
    architecture: str,
    train: Train,
    make_experiment: ExperimentMaker,
    teacher_run: Path,
    dense_run: Path,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    source = teacher_run if architecture == DENSE else dense_run
    opposite = pc.subtract(1, shop_log["click"])
    log = shop_log.set_column(shop_log.column_names.index("click"), "click", opposite)
    log = log.set_column(log.column_names.index("purchase"), "purchase", pc.multiply(opposite, 0))
    pq.write_table(log, tmp_path / "train.parquet", row_group_size=60)
    config = make_experiment(tmp_path, "training.epochs=12", "training.dense_optimizer.lr=0.03", architecture)
    taught = config.model_copy(update={"model": config.model.model_copy(
        update={"distillation": config.model.distillation.model_copy(update={"weight": 1000.0})}
    )})  # fmt: skip

    alone = train(config, tmp_path / "alone").folder.root
    student = train(taught, tmp_path / "student", origin=find_origin(str(source), made_by="distil")).folder.root

    wanted_N = predictions(source, shop_log)[:, 0]
    correlations = [np.corrcoef(predictions(run, shop_log)[:, 0], wanted_N)[0, 1] for run in (alone, student)]
    assert correlations[0] < -0.8
    assert correlations[1] > 0.9
    of_product = [np.abs(predictions(run, shop_log) - predictions(source, shop_log))[:, 2] for run in (alone, student)]
    assert of_product[1].mean() < 0.5 * of_product[0].mean()


def test_batches_hold_what_the_teacher_gives_for_their_own_rows(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config, seen = make_experiment(tmp_path), []
    bundle = ModelBundle.load(teacher_run / "bundle")

    def compare(step: int, values: Mapping[str, float]) -> None:
        # The log is the teacher's, so that the encoders are equal and the teacher can read the student's batches.
        if step == 10 and "train/lr" in values:
            folder = RunFolder(tmp_path / "run")
            runtime = start_runtime(device="cpu")
            splits = Splits(config, folder, encoder=FeatureEncoder.load(folder.encoder), runtime=runtime)
            loader = splits.loader("train", batch_size=16)
            for batch in loader.epoch(splits.stream("train").start()):
                assert batch.teacher_BZ is not None
                with torch.no_grad():
                    seen.append(float((bundle.model(batch).logits_BZ - batch.teacher_BZ).abs().max()))
            assert all(batch.teacher_BZ is None for batch, *_ in splits.loader("validation", batch_size=16).all_rows())

    train(config, tmp_path / "run", event=compare, origin=find_origin(str(teacher_run), made_by="distil"))

    assert len(seen) == 12
    assert max(seen) < 1e-5


def test_teacher_reads_raw_rows_by_its_own_encoder(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    hashed = "inputs.features.item_id={kind: id, side: item, encoding: {kind: hash, num_buckets: 7}}"
    config = make_experiment(tmp_path, hashed, "tasks.late={kind: binary, label: click}")
    features = {name: one for name, one in config.inputs.features.items() if name not in ("user_id", "price")}
    config = config.model_copy(update={"inputs": config.inputs.model_copy(update={"features": features})})
    seen: list[np.ndarray[Any, Any]] = []

    def look(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            seen.append(np.array(teacher_rows(RunFolder(tmp_path / "run"))))

    result = train(config, tmp_path / "run", event=look, origin=find_origin(str(teacher_run), made_by="distil"))

    logits_NZ = torch.from_numpy(seen[0])
    np.testing.assert_allclose(
        torch.sigmoid(logits_NZ[:, :2]), predictions(teacher_run, shop_log)[:, :2], rtol=0, atol=1e-6
    )
    assert torch.isnan(logits_NZ[:, 2]).all()
    assert result.folder.state["taught"] == ["ctr", "cvr", "ctcvr"]
    assert result.folder.cost_report()["tasks"][-1]["task"] == "ctcvr"  # type: ignore[index]


def test_several_teachers_teach_the_mean_of_what_each_knows(
    train: Train,
    make_experiment: ExperimentMaker,
    teacher_run: Path,
    dense_run: Path,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    config = make_experiment(tmp_path, DENSE)
    (tmp_path / "clicks").mkdir()
    of_clicks = make_experiment(tmp_path / "clicks")
    of_clicks = of_clicks.model_copy(update={"tasks": {"ctr": config.tasks["ctr"]}, "ranking": type(config.ranking)()})
    third = train(of_clicks, tmp_path / "clicks" / "run").folder.root
    sources = [str(third), str(teacher_run), str(dense_run)]
    seen: list[np.ndarray[Any, Any]] = []

    def look_and_stop(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            seen.append(np.array(teacher_rows(RunFolder(tmp_path / "run"))))
            os.kill(os.getpid(), signal.SIGTERM)

    train(config, tmp_path / "run", event=look_and_stop, origin=find_origin(*sources, made_by="distil"))
    with pytest.raises(TrainingError, match=f"began with distil from {', '.join(sources)}, not with distil from"):
        train(config, tmp_path / "run", resume=True, origin=find_origin(*reversed(sources), made_by="distil"))
    result = train(config, tmp_path / "run", resume=True, origin=find_origin(*sources, made_by="distil"))

    of_each = [ModelBundle.load(Path(source) / "bundle").predict(shop_log) for source in sources]
    log_odds = [np.log(p_NT) - np.log1p(-p_NT) for p_NT in of_each]
    ctr_N = np.mean([logits_NT[:, 0] for logits_NT in log_odds], axis=0)
    cvr_N = np.mean([logits_NT[:, 1] for logits_NT in log_odds[1:]], axis=0)
    np.testing.assert_allclose(seen[0][:, 0], ctr_N, rtol=0, atol=1e-4)
    np.testing.assert_allclose(seen[0][:, 1], cvr_N, rtol=0, atol=1e-4)
    assert result.folder.state["taught"] == ["ctr", "cvr", "ctcvr"]
    lineage = ModelBundle.load(result.folder.bundle).lineage
    assert lineage is not None
    assert lineage.tags()["recmoe.made_from"] == ", ".join(sources)
    assert len(set(lineage.tags()["recmoe.made_from_digest"].split(", "))) == 3


def test_teacher_named_twice_is_refused(teacher_run: Path) -> None:
    with pytest.raises(TrainingError, match=r"/bundle and .*/run are the same model \(digest .*\); name it once"):
        find_origin(str(teacher_run), str(teacher_run / "bundle"), made_by="distil")


def test_curves_show_the_distance_to_the_teacher_task_by_task(student_run: RunFolder) -> None:
    lines = [json.loads(line) for line in student_run.metrics.read_text(encoding="utf-8").splitlines()]
    distances = [line["train/ctr/teacher/loss"] for line in lines if "train/lr" in line]

    assert {"train/cvr/teacher/loss", "train/ctcvr/teacher/loss", "train/ctr/loss"} <= set(lines[0])
    assert 0 < distances[-1] < distances[0]


def test_run_ends_with_what_the_student_costs_next_to_its_teacher(student_run: RunFolder, teacher_run: Path) -> None:
    report = student_run.cost_report()

    assert report is not None
    before, after = report["before"], report["after"]
    student, teacher = (ModelBundle.load(root / "bundle") for root in (student_run.root, teacher_run))
    sizes = {name: tensor.numel() for name, tensor in student.model.named_parameters()}
    tables = sum(size for name, size in sizes.items() if ".tables." in name)
    assert (after["dense_parameters"], after["table_parameters"]) == (sum(sizes.values()) - tables, tables)
    assert after["dense_parameters"] < before["dense_parameters"]
    assert after["flops_per_row"] < before["flops_per_row"]
    assert report["speedup"] == before["rank_ms"] / after["rank_ms"] > 0
    assert 0 < after["model_ms"] < after["rank_ms"]
    assert student.report is not None
    assert teacher.report is not None
    for name in ("ctr.auc[all]", "cvr.logloss[click]", "ctcvr.auc[all]"):
        assert report["metrics_after"][name] == pytest.approx(student.report.value(name))
        assert report["metrics_before"][name] == pytest.approx(teacher.report.value(name), abs=1e-6)
    ctr = report["tasks"][0]
    assert (ctr["task"], ctr["metric"], ctr["space"]) == ("ctr", "auc", "all")
    assert ctr["advantage"] == pytest.approx(ctr["after"] - ctr["before"])
    assert ctr["low"] <= ctr["advantage"] <= ctr["high"] < 0
    assert ctr["verdict"] == "worse"


def test_flops_of_a_row_are_those_of_its_matrix_products(student_run: RunFolder) -> None:
    bundle = ModelBundle.load(student_run.bundle)
    report = student_run.cost_report()

    weights = {name: one for name, one in bundle.model.named_parameters() if ".tables." not in name}
    matrices = [one for name, one in weights.items() if one.ndim > 1 and "bias" not in name]

    assert report is not None
    assert report["after"]["flops_per_row"] == 2 * sum(weight.numel() for weight in matrices)


def test_student_says_whose_student_it_is(student_run: RunFolder, teacher_run: Path) -> None:
    lineage = ModelBundle.load(student_run.bundle).lineage

    assert lineage is not None
    assert (lineage.made_by, lineage.source) == ("distil", str(teacher_run))
    assert lineage.digest == ModelBundle.load(teacher_run / "bundle").digest
    assert ModelBundle.load(teacher_run / "bundle").lineage is None


def test_resumed_student_equals_an_unbroken_one_without_asking_the_teacher_again(
    train: Train,
    make_experiment: ExperimentMaker,
    teacher_run: Path,
    student_run: RunFolder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = Path(shutil.copytree(teacher_run / "bundle", tmp_path / "teacher"))
    config = make_experiment(student_run.root.parent, DENSE, "evaluation.num_resamples=50")

    def stop(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(config, tmp_path / "run", event=stop, origin=find_origin(str(gone), made_by="distil"))
    shutil.rmtree(gone)
    scored_at = (stopped.folder.teacher / "logits.npy").stat().st_mtime_ns
    resumed: list[int] = []
    result = train(
        config,
        tmp_path / "run",
        resume=True,
        event=lambda *_: resumed.append((stopped.folder.teacher / "logits.npy").stat().st_mtime_ns),
    )

    assert stopped.is_interrupted
    assert set(resumed) == {scored_at}
    mine, theirs = (
        ModelBundle.load(run / "bundle").model.state_dict() for run in (result.folder.root, student_run.root)
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert not result.folder.teacher.exists()
    assert result.folder.cost_report() is None
    assert f"{gone} is gone: what the new model costs next to it is not measured" in caplog.text


def test_bundle_of_a_student_is_made_again_without_its_teacher(student_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(student_run.root, tmp_path / "run")))
    before = ModelBundle.load(copy.bundle)
    shutil.rmtree(copy.bundle)
    copy.update_state(origin={**copy.state["origin"], "root": str(tmp_path / "gone")})

    remake_bundle(copy)

    after = ModelBundle.load(copy.bundle)
    assert after.lineage == before.lineage
    assert all(torch.equal(after.model.state_dict()[name], one) for name, one in before.model.state_dict().items())


def test_teacher_without_a_common_task_is_refused(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)
    tasks = {"like": config.tasks["ctr"]}
    config = config.model_copy(update={"tasks": tasks})

    with pytest.raises(TrainingError, match=r"has no task of this config: it predicts ctr, cvr, ctcvr, and"):
        train(config, tmp_path / "run", origin=find_origin(str(teacher_run), made_by="distil"))


def test_task_that_means_something_else_is_refused_with_what_differs(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "tasks.ctcvr.label=purchase", "tasks.cvr.weight=2")

    with pytest.raises(TrainingError, match=r"task ctcvr means something else in .*: label is None there and purchase"):
        train(config, tmp_path / "run", origin=find_origin(str(teacher_run), made_by="distil"))


def test_column_that_only_the_teacher_reads_must_be_in_the_log(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    for split in ("train", "validation", "test"):
        pq.write_table(shop_log.drop_columns(["price"]), tmp_path / f"{split}.parquet")
    config = make_experiment(tmp_path)
    features = {name: one for name, one in config.inputs.features.items() if name != "price"}
    config = config.model_copy(update={"inputs": config.inputs.model_copy(update={"features": features})})

    with pytest.raises(SchemaError, match=r"shop, the other model, reads these rows too: .*price"):
        train(config, tmp_path / "run", origin=find_origin(str(teacher_run), made_by="distil"))


def test_rows_that_are_not_kept_encoded_are_refused(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "data.encoded_cache=off")

    with pytest.raises(TrainingError, match=r"data\.encoded_cache is off.*set it to auto or on"):
        train(config, tmp_path / "run", origin=find_origin(str(teacher_run), made_by="distil"))


def test_run_that_began_by_itself_takes_no_teacher(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "training.max_steps=2")
    train(config, tmp_path / "run")

    with pytest.raises(TrainingError, match=r"began by itself, not with distil from .*; resume it as it began"):
        train(config, tmp_path / "run", resume=True, origin=find_origin(str(teacher_run), made_by="distil"))


def test_teacher_that_has_changed_since_is_refused(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, dense_run: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(teacher_run / "bundle", tmp_path / "teacher"))
    teacher = find_origin(str(moved), made_by="distil")
    shutil.rmtree(moved)
    shutil.copytree(dense_run / "bundle", moved)

    with pytest.raises(TrainingError, match=r"is not the model that the run began with \(digest"):
        train(make_experiment(tmp_path), tmp_path / "run", origin=teacher)


def test_machine_that_does_not_see_the_encoded_rows_is_told(
    train: Train, make_experiment: ExperimentMaker, teacher_run: Path, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)

    def stop_and_lose(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            shutil.rmtree(tmp_path / "run" / "cache" / "teacher")
            os.kill(os.getpid(), signal.SIGTERM)

    teacher = find_origin(str(teacher_run), made_by="distil")
    train(config, tmp_path / "run", event=stop_and_lose, origin=teacher)
    folder = RunFolder(tmp_path / "run")
    from recmoe.runs.worker import run_worker

    with pytest.raises(TrainingError, match=r"what the teacher says of the training rows cannot be seen"):
        run_worker(config, folder, runtime=start_runtime(device="cpu"))
