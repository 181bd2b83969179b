"""What a run says of its gates and experts: curves at every evaluation, and a report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.record import tracked
from recmoe.runs.report import expert_history
from recmoe.runs.train import RunResult

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]
SPARSE = "model.architecture={kind: ple, num_levels: 2, expert_hidden: [8], gate: {kind: top_k, k: 2}}"


@pytest.fixture(scope="module")
def seen(
    train: Train, make_experiment: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExperimentConfig, RunFolder]:
    """A run of a sparse mixture with two levels that was evaluated three times, and its config."""
    folder = tmp_path_factory.mktemp("seen")
    config = make_experiment(folder, SPARSE, "training.evaluate_every=10", "evaluation.slices=[hour]")
    return config, train(config, folder / "run").folder


def lines_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def test_curves_of_experts_have_a_point_per_evaluation(seen: tuple[ExperimentConfig, RunFolder]) -> None:
    _, folder = seen

    lines = lines_of(folder)

    evaluated = [line["step"] for line in lines if "val/ctr.auc[all]" in line]
    assert evaluated == [10, 20, 25]
    assert list(expert_history(folder)) == evaluated
    assert not any(name.startswith("experts/") for line in lines if "train/lr" in line for name in line)
    last = expert_history(folder)[25]
    for level, gates in enumerate((("ctr", "cvr", "shared"), ("ctr", "cvr"))):
        assert f"experts/level{level}/similarity" in last
        for gate in gates:
            usage = [value for name, value in last.items() if name.startswith(f"experts/level{level}/{gate}/usage/")]
            assert sum(usage) == pytest.approx(1.0)
            # Two of its experts have a weight, of the four or six that a gate sees.
            assert 0 < last[f"experts/level{level}/{gate}/row_entropy"] <= 0.5
    assert any(name.endswith("/shift") and "hour=" in name for name in last)


def test_report_holds_the_same_of_the_test_split(seen: tuple[ExperimentConfig, RunFolder]) -> None:
    _, folder = seen

    report = Report.from_json(folder.report.read_text())

    assert report.experts.keys() >= {"experts/level1/cvr/usage/shared.1", "experts/level1/cvr/total_entropy"}
    page = folder.page.read_text()
    for title in ("Use of experts", "By task and segment", "Similarity of experts", "Over time"):
        assert f'<h3 class="part">{title}</h3>' in page


def test_evaluating_the_bundle_repeats_what_the_report_says_of_experts(
    seen: tuple[ExperimentConfig, RunFolder], tmp_path: Path
) -> None:
    _, folder = seen
    trained = Report.from_json(folder.report.read_text())

    evaluation = evaluate_bundle(ModelBundle.load(folder.bundle), cache_dir=tmp_path)

    assert evaluation.report.experts == pytest.approx(trained.experts, abs=1e-6)
    _, page = evaluation.write(tmp_path / "page")
    # A bundle knows nothing of the run's course.
    assert "Similarity of experts" in page.read_text()
    assert "Over time" not in page.read_text()


def test_slice_that_the_validation_split_lacks_is_left_out_of_the_curves(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "evaluation.slices=[screen]")
    test = tmp_path / "test.parquet"
    rows = pq.read_table(test)
    pq.write_table(rows.append_column("screen", [["phone", "tv"] * (rows.num_rows // 2)]), test)

    folder = train(config, tmp_path / "run").folder

    (last,) = expert_history(folder).values()
    assert not any("screen" in name for name in last)
    assert any("screen=tv" in name for name in Report.from_json(folder.report.read_text()).experts)


def test_run_of_a_model_without_gates_says_so(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    config = make_experiment(tmp_path, "model.architecture={kind: shared_bottom, hidden: [8]}")

    folder = train(config, tmp_path / "run").folder

    assert expert_history(folder) == {}
    assert not Report.from_json(folder.report.read_text()).experts
    assert "The model has no gates that choose among experts." in folder.page.read_text()


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("city=Köln", "experts/level0/ctr/city_Köln/shift"),
        ("price=[10, 20)", "experts/level0/ctr/price_.10_ 20_/shift"),
    ],
)
def test_curve_of_any_value_has_a_name_that_mlflow_takes(segment: str, name: str) -> None:
    (found,) = tracked({f"experts/level0/ctr/{segment}/shift": 0.5})

    assert found == name


def test_interrupted_run_has_one_course(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    config = make_experiment(tmp_path, "training.evaluate_every=5", "training.checkpoint_every=10")

    def stop(step: int, values: dict[str, float]) -> None:
        if step == 15 and "train/lr" not in values:
            raise RuntimeError("the machine is gone")

    with pytest.raises(RuntimeError, match="the machine is gone"):
        train(config, tmp_path / "run", event=stop)
    folder = train(config, tmp_path / "run", resume=True).folder

    assert list(expert_history(folder)) == [5, 10, 15, 20, 25]
    assert len([line for line in lines_of(folder) if "val/ctr.auc[all]" in line]) == 5
