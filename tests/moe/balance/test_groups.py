"""The groups term against a loop from its formula, and in training on a log whose groups want experts of their own."""

# B rows, D input width, V experts

import math
from collections.abc import Sequence

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, TrainingModel, build_training_model
from recmoe.moe.balance.groups import GroupInformation
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Weighed
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.optimizers import ConstantSchedule
from recmoe.training.step import PlainStepper, Update

TERM = GroupInformation("country", num_groups=3)


def use_of(gates: Sequence[Weighed], country_B: Sequence[int]) -> GateUse:
    return GateUse(
        level=0,
        gates=tuple(f"gate{index}" for index in range(len(gates))),
        experts=("shared.0", "shared.1", "shared.2"),
        weights_BGE=torch.stack([gate.weights_BV for gate in gates], dim=1),
        by_gate=tuple(gates),
        ids={"country": torch.tensor(country_B)},
    )


def information(shares: Sequence[Sequence[float]], groups: Sequence[int]) -> float:
    """Σ_s Σ_v P(s, v) · log(P(s, v) / (P(s) · P(v)))."""
    joint: dict[tuple[int, int], float] = {}
    for group, row in zip(groups, shares, strict=True):
        for expert, share in enumerate(row):
            joint[group, expert] = joint.get((group, expert), 0.0) + share / len(shares)
    of_group = {group: sum(p for (s, _), p in joint.items() if s == group) for group, _ in joint}
    of_expert = {expert: sum(p for (_, v), p in joint.items() if v == expert) for _, expert in joint}
    return sum(p * math.log(p / (of_group[s] * of_expert[v])) for (s, v), p in joint.items() if p > 0)


def test_term_is_the_mean_information_of_the_gates_before_they_choose() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(8, 3) * 2 for _ in range(2)]
    chosen = [torch.nn.functional.one_hot(z_BV.argmax(dim=1), 3).float() for z_BV in logits]
    groups = [0, 1, 2, 2, 1, 0, 0, 2]

    value = TERM([use_of([Weighed(p_BV, z_BV) for p_BV, z_BV in zip(chosen, logits, strict=True)], groups)])

    expected = [information(torch.softmax(z_BV, dim=1).tolist(), groups) for z_BV in logits]
    assert value.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert value > 0.01


def test_weights_of_any_sum_count_by_their_shares() -> None:
    weights_BV = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0], [3.0, 0.0, 1.0]])

    value = TERM([use_of([Weighed(weights_BV)], [0, 1, 1, 0])])

    shares = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.75, 0.0, 0.25]]
    assert value.item() == pytest.approx(information(shares, [0, 1, 0]), rel=1e-5)


def test_term_is_zero_for_groups_alike_and_log_two_for_two_groups_with_experts_of_their_own() -> None:
    alike_BV = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * 2)
    apart_BV = torch.tensor([[1.0, 0.0, 0.0]] * 2 + [[0.0, 1.0, 0.0]] * 2)

    assert TERM([use_of([Weighed(alike_BV)], [0, 0, 1, 1])]).item() == pytest.approx(0.0, abs=1e-6)
    assert TERM([use_of([Weighed(apart_BV)], [0, 0, 1, 1])]).item() == pytest.approx(math.log(2), rel=1e-5)


def test_groups_beyond_the_largest_number_are_one_with_the_unknown() -> None:
    p_BV = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])

    value = TERM([use_of([Weighed(p_BV)], [3, 900, 0, 1])])

    assert value.item() == pytest.approx(information(p_BV.tolist(), [0, 0, 0, 1]), rel=1e-5)


LAYOUT = InputLayout(
    tables=(TableSpec("tag", 9, 4, "sum", ("tags",)), TableSpec("country", 4, 4, "sum", ("country",))),
    sparse=(
        SparseKey("tags", "tags", "item", "tag", 4, is_list=True),
        SparseKey("country", "country", "user", "country", 4),
    ),
    dense=(DenseColumn("price", "price", "item", "value"),),
)


def shop(num_rows: int) -> Batch:
    """Two countries, which want the opposite of a price; tags say nothing, and are several a row or none."""
    generator = torch.Generator().manual_seed(1)
    country_B = torch.randint(1, 3, (num_rows,), generator=generator)
    price_B1 = torch.randn(num_rows, 1, generator=generator)
    counts_B = torch.randint(0, 3, (num_rows,), generator=generator)
    tags = torch.randint(1, 9, (int(counts_B.sum()),), generator=generator)
    labels_BL = ((price_B1 > 0) == (country_B[:, None] == 1)).float()
    lengths_KB = torch.stack([counts_B, torch.ones_like(counts_B)]).int()
    return Batch(price_B1, lengths_KB, torch.cat([tags, country_B]), labels_BL)


def trained(weight: float) -> tuple[TrainingModel, Batch, float]:
    """The model, its rows, and the last value of the term's curve."""
    tasks = TaskSet({"ctr": TypeAdapter[TaskConfig](TaskConfig).validate_python({"kind": "binary", "label": "click"})})
    config = ModelConfig.model_validate(
        {
            "architecture": {"kind": "mmoe", "num_experts": 2, "expert_hidden": [8]},
            "wide": {"kind": "none"},
            "unknown_share": 0.0,
            "balance": {"fair": {"kind": "groups", "feature": "country", "weight": weight}},
        }
    )
    model = build_training_model(layout=LAYOUT, tasks=tasks, config=config, tables=PlainTables, seed=3)
    batch = shop(400)
    rows = TablesConfig.model_validate({"backend": "plain", "optimizer": {"kind": "sgd", "lr": 1.0}})
    tables = place(model, config=rows, device=torch.device("cpu")).table_optimizer
    dense = torch.optim.Adam([parameter for _, parameter in dense_parameters(model)], lr=0.02)
    stepper = PlainStepper(losses=model, prepare=model.prepare, update=Update(dense, tables, 0.02, ConstantSchedule()))
    for step in range(120):
        losses_T = stepper.step(iter([batch]), step=step, num_steps=120)
    return model, batch, losses_T[model.loss_names.index("balance.fair")].item()


def gap(model: TrainingModel, batch: Batch) -> float:
    """How much the first expert's mean share differs between the countries."""
    with torch.no_grad():
        (use,) = model.ranker(batch).gate_uses
    country_B = batch.values[-400:]
    first_B: Tensor = use.weights_BGE[:, 0, 0]
    return float((first_B[country_B == 1].mean() - first_B[country_B == 2].mean()).abs())


def test_in_training_groups_part_without_the_term_and_share_experts_with_it() -> None:
    free, batch, apart = trained(0.0)
    even, _, alike = trained(20.0)

    assert gap(free, batch) > 0.3
    assert apart > 0.05
    assert gap(even, batch) < 0.05
    assert alike < 0.002
