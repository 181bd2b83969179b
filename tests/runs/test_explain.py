"""explain and explain-gates on a trained model: rows spread through a split, numbers, page, and the command line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.client import Explanation, FeatureAttribution, TaskExplanation
from recmoe.data.parquet import ParquetStream
from recmoe.evaluation.gate_features import GateFeatures
from recmoe.evaluation.gate_features_page import in_words, write_gate_features_page
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.runs.explain import ExplainedRows, _spread_rows, explain_gates, explain_rows
from recmoe.runs.train import RunResult


def features_of(moves: list[list[float]], names: tuple[str, ...], *, gap: float = 0.0) -> GateFeatures:
    moves_FV = torch.tensor(moves, dtype=torch.float64)
    ones_V = torch.ones(moves_FV.shape[1], dtype=torch.float64)
    experts = tuple(f"shared.{expert}" for expert in range(moves_FV.shape[1]))
    return GateFeatures(0, "ctr", experts, names, moves_FV, ones_V, ones_V * gap, 40)


@pytest.mark.parametrize(("num_rows", "num_taken"), [(40, 40), (16, 16), (7, 7), (1000, 100)])
def test_rows_are_spread_through_the_files(num_rows: int, num_taken: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"row": range(100)}), tmp_path / "log.parquet", row_group_size=30)
    stream = ParquetStream([str(tmp_path / "log.parquet")], seed=0, shuffle_rows=None, cache_dir=tmp_path)

    rows = _spread_rows(stream, num_rows, ["row"])["row"].to_pylist()

    assert len(rows) == len(set(rows)) == num_taken
    if num_rows == 40:
        # Three runs, of which the last is cut short.
        assert rows == [*range(16), *range(33, 49), *range(66, 74)]


def test_words_name_the_features_that_move_a_gate_most() -> None:
    one = features_of([[0.1, 0.1], [0.3, 0.4], [0.0, 0.0], [0.05, 0.05]], ("price", "country", "age", "shop"))

    assert in_words(one) == "moved most by country (70%), price (20%), shop (10%)"
    assert in_words(features_of([[0.0, 0.0]], ("price",))) == "nothing moves it: it gives all rows the same"


def test_words_say_where_attributions_do_not_add_up() -> None:
    one = features_of([[0.1, 0.1]], ("price",), gap=0.2)

    assert "price (100%); the attributions miss 20% of what they are to add up to: take more --steps" in in_words(one)


def test_page_holds_a_picture_and_a_sentence_of_every_gate(tmp_path: Path) -> None:
    many = features_of([[0.01 * place, 0.0] for place in range(20)], tuple(f"f{place}" for place in range(20)))

    write_gate_features_page([many, features_of([[0.1, 0.2]], ("größe",))], tmp_path / "gates.html", title="Gates")

    page = (tmp_path / "gates.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "moved most by f19 (10%), f18 (9%), f17 (9%)" in page
    assert "moved most by größe (100%)" in page


@pytest.fixture(scope="module")
def bundle(finished: tuple[ExperimentConfig, RunResult]) -> Path:
    pytest.importorskip("captum")
    return finished[1].folder.bundle


def test_trained_model_is_explained_by_the_features_of_its_config(
    bundle: Path, finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    found = explain_gates(ModelBundle.load(bundle), num_rows=20, cache_dir=tmp_path)

    assert found.name == "shop: test split"
    assert found.gates
    for one in found.gates:
        assert one.num_rows == 20
        assert set(one.features) <= finished[0].inputs.features.keys()
        assert one.gap < 0.02


def test_command_writes_numbers_and_a_page(bundle: Path, tmp_path: Path) -> None:
    arguments = ["explain-gates", str(bundle), "--rows", "20", "--to", str(tmp_path / "gates")]

    printed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    as_json = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)

    assert printed.exit_code == as_json.exit_code == 0
    written = json.loads((tmp_path / "gates" / "gates.json").read_text())
    assert json.loads(as_json.stdout) == written
    assert f"level 0, gate {written[0]['gate']}: moved most by " in printed.stdout
    assert (tmp_path / "gates" / "gates.html").stat().st_size > 1000


def explained(**values: float) -> Explanation:
    moves = [FeatureAttribution(feature, value) for feature, value in values.items()]
    task = TaskExplanation("log-odds", sum(values.values()), 0.0, moves, 0.0)
    return Explanation({"ctr": task}, [])


def test_mean_sizes_leave_out_signs_and_fall() -> None:
    rows = ExplainedRows([1, 2], [explained(price=0.1, age=-0.5), explained(age=0.1, price=0.3)])

    sizes = rows.mean_sizes()

    assert sizes == {"ctr": {"age": pytest.approx(0.3), "price": pytest.approx(0.2)}}
    assert list(sizes["ctr"]) == ["age", "price"]


def test_rows_of_a_split_are_explained_as_the_ranker_explains_them(
    finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    ranker = Ranker.load(finished[1].folder.bundle)
    test = pq.read_table(finished[0].data.test[0])

    found = explain_rows(ranker, num_rows=1000, cache_dir=tmp_path)
    from_files = explain_rows(ranker, paths=finished[0].data.validation, num_rows=16, cache_dir=tmp_path)

    assert found.item_ids == test["item_id"].to_pylist()
    predictions_N = ranker.score(test)[:, 0]
    for explanation, prediction in zip(found.explanations, predictions_N.tolist(), strict=True):
        log_odds = torch.tensor(explanation.tasks["ctr"].predicted)
        assert torch.sigmoid(log_odds).item() == pytest.approx(prediction, abs=1e-5)
    assert len(from_files.explanations) == 16


def test_explain_prints_mean_sizes_and_writes_a_line_per_row(
    finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    target = tmp_path / "explained.jsonl"
    arguments = ["explain", str(finished[1].folder.bundle), "--rows", "20", "--to", str(target)]

    printed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    as_json = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)

    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(lines) == 20
    assert list(lines[0]) == ["item_id", "tasks", "gates"]
    sizes = json.loads(as_json.stdout)["ctr"]
    assert sizes["age"] == pytest.approx(
        sum(abs(one["value"]) for line in lines for one in line["tasks"]["ctr"]["features"] if one["feature"] == "age")
        / 20
    )
    head, first, *_ = printed.stdout.splitlines()
    assert head.split() == ["feature", "task", "ctr", "task", "cvr", "task", "ctcvr"]
    assert first.split()[0] == next(iter(sizes))
    assert f"mean size over 20 rows; wrote {target}" in printed.stdout
