"""The seam between inputs and architectures: names of all weights, groups of features, old names."""

import pytest
import torch
from torch import nn

from recmoe.axes import describe
from recmoe.model import MultiTaskRanker
from recmoe.model.stored_names import current_name


def test_weights_of_gates_experts_and_towers_are_named_by_what_they_belong_to(shop_model: MultiTaskRanker) -> None:
    described = describe(shop_model.model)

    gate = described["architecture.layer.gates.1.weight_VD"]
    assert gate.name == "architecture.layer.gates[cvr].weight_VD"
    assert gate.axes == (described["architecture.layer.experts.weights_EOD.0"].axes[0], None)
    assert described["towers.0.layers.0.bias"].name == "towers[ctr].layers.0.bias"


def test_weight_that_no_one_names_is_an_error() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias_T = nn.Parameter(torch.zeros(2))

    with pytest.raises(AssertionError, match=r"no one says what bias_T belongs to"):
        describe(Careless())


def test_list_of_parts_that_no_one_names_is_an_error() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])

    with pytest.raises(AssertionError, match=r"no one says what towers\. belong to"):
        describe(Careless())


@pytest.mark.parametrize(
    ("stored", "current"),
    [
        ("towers.0.layers.0.bias", "model.towers.0.layers.0.bias"),
        ("dense/ranker.architecture.layer.gates.0.w", "dense/ranker.model.architecture.layer.gates.0.w"),
        ("dense_optimizer/ranker.towers.0.bias/step", "dense_optimizer/ranker.model.towers.0.bias/step"),
        ("dense/ranker.model.towers.0.bias", "dense/ranker.model.towers.0.bias"),
        ("input_layer.wide.own", "input_layer.wide.own"),
        ("tables/towers", "tables/towers"),
    ],
)
def test_stored_name_becomes_the_current_one(stored: str, current: str) -> None:
    assert current_name(stored) == current
