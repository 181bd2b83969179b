from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import ConfigError
from recmoe.evaluation.by_group import group_sentences
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.train import RunResult


@pytest.fixture(scope="module")
def run_bundle(finished: tuple[ExperimentConfig, RunResult]) -> ModelBundle:
    return ModelBundle.load(finished[1].folder.bundle)


def test_test_split_repeats_the_report_of_the_training(
    run_bundle: ModelBundle, finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    evaluation = evaluate_bundle(run_bundle, cache_dir=tmp_path)

    trained = finished[1].report
    assert trained is not None
    assert evaluation.name == "shop: test split"
    assert evaluation.report.values() == pytest.approx(trained.values())
    values, page = evaluation.write(tmp_path / "made" / "here")
    assert Report.from_json(values.read_text()) == evaluation.report
    assert "shop: test split" in page.read_text()


def test_other_files_and_slices_can_be_asked_for(run_bundle: ModelBundle, shop_log: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "new.parquet"
    pq.write_table(shop_log.slice(0, 30), path)

    evaluation = evaluate_bundle(
        run_bundle, paths=[str(path)], overrides=["evaluation.slices=[item_id]"], cache_dir=tmp_path
    )

    assert evaluation.report.num_rows == 30
    assert evaluation.name == f"shop: {path}"
    assert any(row.slice is not None and row.slice.startswith("item_id=") for row in evaluation.report.rows)
    assert {one.column for one in evaluation.report.routing} == {"item_id"}
    assert "of which expert a row gets" in " ".join(group_sentences(evaluation.report))


def test_override_that_does_not_fit_is_an_error(run_bundle: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"command line  evaluation\.slice: unknown key, did you mean slices\?"):
        evaluate_bundle(run_bundle, overrides=["evaluation.slice=[item_id]"], cache_dir=tmp_path)
