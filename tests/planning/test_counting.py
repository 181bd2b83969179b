from collections.abc import Callable
from typing import cast

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.architectures.seam import Inputs, Outputs
from recmoe.architectures.towers import TowerModel
from recmoe.embeddings.sparse_optimizer import RowwiseAdagradConfig
from recmoe.features.layout import InputLayout, SequenceSpec, SparseKey, TableSpec
from recmoe.model import ModelConfig, TrainingModel, build_training_model
from recmoe.planning.counting import RandomVectors, count_step
from recmoe.planning.work import step_work
from recmoe.sequence import HistoryEncoderConfig
from recmoe.tasks.funnel import TaskSet

LayoutMaker = Callable[..., InputLayout]


def make(layout: InputLayout, tasks: TaskSet) -> TrainingModel:
    config = ModelConfig.model_validate({"architecture": {"kind": "shared_bottom", "hidden": [3]}})
    return build_training_model(layout=layout, tasks=tasks, config=config, tables=RandomVectors)


class Attentive(nn.Module):
    """Towers whose logits read each other, as those of AITM do."""

    def __init__(self, model: TowerModel) -> None:
        super().__init__()
        self.architecture, self.towers = model.architecture, model.towers
        self.replaces, self.loss_weights = model.replaces, model.loss_weights
        self.query = nn.Linear(3, 5, bias=False)

    def forward(self, inputs: Inputs) -> Outputs:
        h, uses = self.architecture(inputs.x, inputs.groups)
        query_BTA = self.query(torch.stack(h, dim=1))
        shares_BTT = torch.softmax(query_BTA @ query_BTA.transpose(1, 2), dim=2)
        scaled = [h_BH * shares_BTT[:, :1, 0] for h_BH in h]
        return Outputs(torch.cat([tower(h_BH) for tower, h_BH in zip(self.towers, scaled, strict=True)], dim=1), uses)


def test_what_a_model_does_that_no_one_foresaw_is_counted(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def make_attentive() -> TrainingModel:
        model = make(layout_of(5), two_tasks)
        model.ranker.model = Attentive(cast(TowerModel, model.ranker.model))
        return model

    plain, attentive = (
        count_step(build, ids_per_row={}, num_labels=2, batch_size=10)
        for build in (lambda: make(layout_of(5), two_tasks), make_attentive)
    )

    # Forward and twice backward: the queries of two tasks, and each with each.
    assert attentive.flops - plain.flops == 6 * 10 * (2 * 3 * 5 + 2 * 2 * 5)
    assert attentive.num_products - plain.num_products == 2
    # One share per row scales each of two representations.
    assert (attentive.num_shares, attentive.num_mixed) == (10 * 2, 10 * 2 * 3)


def test_what_is_wrong_with_a_model_is_said_as_in_a_real_step(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def make_wrong() -> TrainingModel:
        model = make(layout_of(5), two_tasks)
        cast(TowerModel, model.ranker.model).towers[0] = nn.Linear(7, 1)
        return model

    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        count_step(make_wrong, ids_per_row={}, num_labels=2, batch_size=10)


def history_layout(kind: str) -> InputLayout:
    """A candidate's id, and a history of ids of the same table with the time of each."""
    return InputLayout(
        tables=(TableSpec("item", 50, 4, "sum", ("history#item", "item")),),
        sparse=(
            SparseKey("history#item", "history", "user", "item", 4, is_list=True, is_sequence=True),
            SparseKey("item", "item", "item", "item", 4),
        ),
        dense=(),
        sequences=(
            SequenceSpec(
                "history",
                "user",
                ("history#item",),
                50,
                has_ages=True,
                encoder=TypeAdapter(HistoryEncoderConfig).validate_python({"kind": kind}),
            ),
        ),
    )


def test_the_encoder_of_a_history_is_counted_for_entries_and_candidates(two_tasks: TaskSet) -> None:
    def counted(kind: str) -> float:
        def build() -> TrainingModel:
            return make(history_layout(kind), two_tasks)

        return count_step(build, ids_per_row={"history#item": 7.0}, num_labels=2, batch_size=10).flops

    flops = {kind: counted(kind) for kind in ("mean", "target_attention", "transformer")}

    # Of 7 entries of 4 floats, by 36 hidden units: entries, candidate, products, weights, weighted sum.
    assert flops["target_attention"] - flops["mean"] == 6 * 10 * (7 * 4 * 36 + 4 * 36 + 7 * 4 * 36 + 7 * 36 + 7 * 4)
    assert flops["transformer"] > flops["target_attention"]


def test_a_table_that_a_sequence_reads_hands_on_a_vector_per_id(two_tasks: TaskSet) -> None:
    work = step_work(
        history_layout("mean"),
        tasks=two_tasks,
        model=ModelConfig.model_validate({"wide": {"kind": "none"}}),
        optimizer=RowwiseAdagradConfig(),
        batch_size=10,
        ids_per_row={"history#item": 7.0},
    )

    (item,) = work.tables
    assert (item.num_ids, item.num_vectors, item.is_pooled) == (80, 80, False)
