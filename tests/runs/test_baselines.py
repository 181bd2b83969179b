"""The baselines of a run: computed once, compared with its model, shown again with its bundle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recmoe.errors import EvaluationError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.baselines import MOST_ROWS, SCORED, set_beside
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.train import RunResult

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]

ON = ("evaluation.baselines=[logistic_regression, boosted_trees]", "evaluation.num_resamples=20", "training.epochs=1")


@pytest.fixture(scope="module")
def run(
    train: Train, make_experiment: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExperimentConfig, RunResult]:
    folder = tmp_path_factory.mktemp("baselines")
    config = make_experiment(folder, *ON)
    return config, train(config, folder / "run")


def test_report_compares_every_task_with_every_baseline(run: tuple[ExperimentConfig, RunResult]) -> None:
    _, result = run

    assert result.report is not None
    found = result.report.baselines
    assert found is not None
    assert [(one.task, one.kind) for one in found.comparisons] == [
        (task, kind) for task in ("ctr", "cvr", "ctcvr") for kind in ("logistic_regression", "boosted_trees")
    ]
    for one in found.comparisons:
        name = f"{one.task}.auc[{one.space}]"
        assert one.model.value == pytest.approx(result.report.value(name))
        assert one.baseline.value == pytest.approx(found.values[one.kind][name].value)
    assert set(found.chance) >= {"ctr.mrr[all]", "cvr.mrr[click]"}


def test_page_and_bundle_show_them(run: tuple[ExperimentConfig, RunResult]) -> None:
    _, result = run

    page = result.folder.page.read_text()
    assert "Beside simple models" in page
    assert "<dt>architecture</dt><dd>mmoe</dd>" in page
    assert f"<dd>{result.folder.root}</dd>" in page
    bundle = ModelBundle.load(result.folder.bundle)
    assert result.report is not None
    assert bundle.report == result.report


def test_evaluation_of_the_same_rows_shows_those_of_the_run(
    run: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    _, result = run
    bundle = ModelBundle.load(result.folder.bundle)

    same = evaluate_bundle(bundle, cache_dir=tmp_path)
    other = evaluate_bundle(bundle, split="validation", cache_dir=tmp_path)

    assert result.report is not None
    assert same.report.baselines == result.report.baselines
    assert other.report.baselines is None


def test_baselines_of_other_rows_are_computed_when_asked_for(
    run: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    _, result = run
    bundle = ModelBundle.load(result.folder.bundle)

    asked = evaluate_bundle(
        bundle,
        split="validation",
        overrides=["evaluation.baselines=[logistic_regression]"],
        cache_dir=tmp_path,
        with_baselines=True,
    )

    assert asked.report.baselines is not None
    assert list(asked.report.baselines.values) == ["logistic_regression"]
    assert len(asked.report.baselines.comparisons) == 3


def test_resumed_run_does_not_compute_them_again(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *ON, "evaluation.baselines=[logistic_regression]")
    stopped = train(config, tmp_path / "run")
    stopped.folder.update_state(status="interrupted")
    before = stopped.folder.baselines.stat().st_mtime_ns

    train(config, tmp_path / "run", resume=True)

    assert stopped.folder.baselines.stat().st_mtime_ns == before


def test_large_test_split_is_compared_on_the_rows_that_were_read(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_ROWS, "test", 64)

    result = train(make_experiment(tmp_path, *ON, "evaluation.baselines=[logistic_regression]"), tmp_path / "run")

    assert result.report is not None
    found = result.report.baselines
    assert found is not None
    assert found.notes == ("test: baselines read 64 of 120 rows, in intervals at equal distances",)
    assert found.comparisons[0].model.value != result.report.value("ctr.auc[all]")


def test_run_that_wants_none_has_none(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    result = train(make_experiment(tmp_path, *ON, "evaluation.baselines=[]"), tmp_path / "run")

    assert result.report is not None
    assert result.report.baselines is None
    assert not result.folder.baselines.exists()


def test_damaged_predictions_name_the_files_and_the_way_out(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *ON, "evaluation.baselines=[logistic_regression]")
    result = train(config, tmp_path / "run")
    (result.folder.root / SCORED).write_bytes(b"half")
    scored = evaluate_bundle(ModelBundle.load(result.folder.bundle), cache_dir=tmp_path).scored

    with pytest.raises(EvaluationError, match=r"baselines\.json and .*baselines\.npz are damaged.* remove .*--resume"):
        set_beside(scored.predictions, result.folder, config.evaluation)

    assert np.isfinite(scored.predictions.predictions_NT).all()
