from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import nn

from recmoe.architectures.seam import Inputs, Outputs
from recmoe.architectures.towers import TowerModel
from recmoe.features.layout import InputLayout
from recmoe.model import ModelConfig, TrainingModel, build_training_model
from recmoe.planning.counting import PooledVectors, count_step
from recmoe.tasks.funnel import TaskSet

LayoutMaker = Callable[..., InputLayout]


def make(layout: InputLayout, tasks: TaskSet) -> TrainingModel:
    config = ModelConfig.model_validate({"architecture": {"kind": "shared_bottom", "hidden": [3]}})
    return build_training_model(layout=layout, tasks=tasks, config=config, tables=PooledVectors)


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
        return Outputs(torch.stack([tower(h_BH) for tower, h_BH in zip(self.towers, scaled, strict=True)], 1), uses)


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
