"""Attributions of gates: complete, equal to a loop from the paper, and on the feature that was planted."""

# B rows, D input width

import sys
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.embeddings.tables import PlainTables
from recmoe.errors import EvaluationError, StackError
from recmoe.evaluation.gate_features import GateFeatures, gate_features
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.balance.statistics import shares_of
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

NUM_ROWS = 70
"""More than one chunk."""
LAYOUT = InputLayout(
    tables=(TableSpec("tag", 9, 3, "mean", ("tags",)), TableSpec("country", 4, 2, "sum", ("country",))),
    sparse=(
        SparseKey("tags", "tags", "item", "tag", 3, is_list=True),
        SparseKey("country", "country", "user", "country", 2),
    ),
    dense=(DenseColumn("price", "price", "item", "value"), DenseColumn("age", "age", "user", "position", 3, 2)),
)
COLUMNS = {"country": [0, 1], "age": [2, 3], "tags": [4, 5, 6], "price": [7]}
"""Of the input: shared before own, and in each half ids, numbers, learned vectors."""
SMALL = {"kind": "mmoe", "num_experts": 3, "expert_hidden": [4]}


def ranker_of(architecture: dict[str, Any]) -> MultiTaskRanker:
    """With gates and tables far from even."""
    task = TypeAdapter[TaskConfig](TaskConfig)
    tasks = TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})
    config = ModelConfig.model_validate({"architecture": architecture})
    torch.manual_seed(0)
    ranker = build_model(layout=LAYOUT, tasks=tasks, config=config, tables=PlainTables)
    with torch.no_grad():
        for name, weight in ranker.named_parameters():
            if "tables" in name or ".gates." in name:
                weight.normal_()
    return ranker


def rows(num_rows: int = NUM_ROWS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    counts_B = torch.randint(0, 3, (num_rows,), generator=generator)
    tags = torch.randint(1, 9, (int(counts_B.sum()),), generator=generator)
    country_B = torch.randint(1, 4, (num_rows,), generator=generator)
    dense_BF = torch.rand(num_rows, 2, generator=generator) * 3
    lengths_KB = torch.stack([counts_B, torch.ones_like(counts_B)]).int()
    return Batch(dense_BF, lengths_KB, torch.cat([tags, country_B]), torch.zeros(num_rows, 0))


def by_loop(ranker: MultiTaskRanker, batch: Batch, level: int, gate: int, *, num_steps: int) -> Tensor:
    """a_BDV, each row, step and expert by itself: the sum of gradients along the line, times its length."""
    with torch.no_grad():
        x_BD = ranker.input_layer(batch).inputs.x
    assert isinstance(x_BD, Tensor)
    mean_D = x_BD.mean(dim=0)
    attributed = []
    for x_D in x_BD:
        grads = []
        for step in range(num_steps):
            on_line_D = (mean_D + (step + 0.5) / num_steps * (x_D - mean_D)).detach().requires_grad_()
            use = ranker.model(ranker.input_layer.inputs_of(on_line_D[None], {})).routing[level]
            w_V = shares_of(use.by_gate[gate])[0]
            grads.append(torch.stack([torch.autograd.grad(w, on_line_D, retain_graph=True)[0] for w in w_V], dim=1))
        attributed.append((x_D - mean_D)[:, None] * torch.stack(grads).mean(dim=0))
    return torch.stack(attributed)


@pytest.fixture(autouse=True)
def needs_captum(request: pytest.FixtureRequest) -> None:
    if "captum" not in request.node.name:
        pytest.importorskip("captum")


@pytest.mark.parametrize(
    "architecture",
    [
        SMALL,
        {"kind": "ple", "num_levels": 2, "num_task_experts": 1, "num_shared_experts": 2, "expert_hidden": [4]},
        {"kind": "home"},
        {"kind": "m3oe", "domain": "country"},
        {**SMALL, "gate": {"kind": "mlp"}},
        {**SMALL, "gate": {"kind": "top_k", "k": 1}},
    ],
    ids=lambda architecture: str(architecture.get("gate", architecture)["kind"]),
)
def test_attributions_add_up_to_the_difference_from_the_mean_row(architecture: dict[str, Any]) -> None:
    found = gate_features(ranker_of(architecture), rows(), num_steps=64)

    assert max(one.difference_V.max() for one in found) > 0.05
    for one in found:
        assert one.num_rows == NUM_ROWS
        assert one.gap < 0.01, one.gate


def test_mean_sizes_equal_those_of_a_loop_over_rows_and_steps() -> None:
    ranker, batch = ranker_of(SMALL), rows(6)

    found = gate_features(ranker, batch, num_steps=64)

    assert [(one.level, one.gate, one.experts) for one in found] == [
        (0, "click", ("shared.0", "shared.1", "shared.2")),
        (0, "buy", ("shared.0", "shared.1", "shared.2")),
    ]
    for gate, one in enumerate(found):
        a_BDV = by_loop(ranker, batch, 0, gate, num_steps=200)
        assert set(one.features) == COLUMNS.keys()
        for feature, moves_V in zip(one.features, one.moves_FV, strict=True):
            expected_V = a_BDV[:, COLUMNS[feature]].sum(dim=1).abs().mean(dim=0)
            torch.testing.assert_close(moves_V, expected_V.double(), rtol=1e-2, atol=1e-4, msg=feature)


def test_feature_that_alone_moves_a_gate_has_all_of_it() -> None:
    ranker = ranker_of(SMALL)
    (layer,) = [module for module in ranker.modules() if isinstance(module, ExpertLayer)]
    with torch.no_grad():
        for index, parameter in enumerate(layer.gates.parameters()):
            kept = COLUMNS["tags" if index else "country"]
            parameter[:, [column for column in range(8) if column not in kept]] = 0.0

    click, buy = gate_features(ranker, rows())

    assert click.ranked()[0] == ("country", pytest.approx(1.0))
    assert buy.ranked()[0] == ("tags", pytest.approx(1.0))


def test_gate_that_gives_all_rows_the_same_has_no_feature() -> None:
    ranker = ranker_of(SMALL)
    with torch.no_grad():
        for module in ranker.modules():
            if isinstance(module, ExpertLayer):
                for parameter in module.gates.parameters():
                    parameter.zero_()

    found = gate_features(ranker, rows())

    assert all(one.gap == 0.0 and one.shares_F.sum() == 0.0 for one in found)


def test_numbers_are_written_by_feature_and_expert() -> None:
    moves_FV = torch.tensor([[0.1, 0.2], [0.0, 0.1]], dtype=torch.float64)
    one_V = torch.tensor([0.2, 0.2], dtype=torch.float64)

    written = GateFeatures(1, "ctr", ("a.0", "a.1"), ("country", "price"), moves_FV, one_V, one_V / 10, 5).to_json()

    assert written["gap"] == pytest.approx(0.1)
    assert written["shares"] == pytest.approx({"country": 0.75, "price": 0.25})
    assert written["moves"] == {"country": {"a.0": 0.1, "a.1": 0.2}, "price": {"a.0": 0.0, "a.1": 0.1}}


def test_model_without_a_choice_of_experts_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no gate of this model chooses among experts; there is nothing"):
        gate_features(ranker_of({"kind": "shared_bottom", "hidden": [4]}), rows())


def test_one_row_is_refused() -> None:
    with pytest.raises(EvaluationError, match="against the mean of several: give at least two rows"):
        gate_features(ranker_of(SMALL), rows(1))


def test_captum_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)

    with pytest.raises(StackError, match=r"integrated gradients need captum .*pip install 'recmoe\[explain\]'"):
        gate_features(ranker_of(SMALL), rows())
