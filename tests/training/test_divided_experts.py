"""What cannot be divided is refused before anything starts, and alone a worker keeps all experts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmoe.config import config_from_dict
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates import SoftmaxGateConfig
from recmoe.runs.train import RunResult
from recmoe.training.divided_experts import divide_experts, divisible_layers, travel_curves, whole_experts


class Fixed(nn.Module):
    """A stack of another package that says nothing of how its experts are taken apart."""

    is_batched = False
    names = ("shared.0", "shared.1")
    input_of_expert = (0, 0)
    num_experts = 2
    out_features = 4

    def forward(self, inputs: Sequence[Any]) -> list[Tensor]:
        return self.each([inputs[0]] * 2)

    def each(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [x + index for index, x in enumerate(inputs)]

    def batched(self, inputs: Sequence[Any]) -> Tensor:
        return torch.stack(self(inputs))


def model_of(experts: Any) -> nn.Module:
    layer = ExpertLayer(
        experts=experts,
        gates=[SoftmaxGateConfig().build(in_features=4, num_experts=experts.num_experts)],
        gate_names=["ctr"],
        input_of_gate=[0],
        mask_GE=[[True] * experts.num_experts],
    )
    return nn.Sequential(layer)


def test_a_model_without_layers_of_experts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"over_workers divides the experts of mixtures .* this model has none; drop"):
        divide_experts(nn.Sequential(nn.Linear(4, 4)), "over_workers")


def test_a_stack_that_cannot_be_taken_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"over_workers cannot divide Fixed, which do not say how .* a method part"):
        divide_experts(model_of(Fixed()), "over_workers")


def test_more_workers_than_experts_are_refused() -> None:
    model = model_of(MlpExperts(reads={"shared.0": 0, "shared.1": 0}, in_features=4, hidden=[4]))

    with pytest.raises(ConfigError, match="level 0 has 2 with weights for 3 workers; have more experts or fewer"):
        divisible_layers(model, num_workers=3)
    assert len(divisible_layers(model, num_workers=2)) == 1


def test_merged_weights_are_refused_by_the_config(shop_config: dict[str, Any]) -> None:
    values = {**shop_config, "data": {"train": "log.parquet"}, "training": {"experts": "over_workers"}}

    with pytest.raises(ConfigError, match=r"training\.experts: over_workers sends rows .* weights merges all"):
        config_from_dict(ExperimentConfig, values, overrides=["model.architecture.mixes=weights"])


def test_alone_a_worker_keeps_all_experts() -> None:
    model = model_of(MlpExperts(reads={"shared.0": 0, "shared.1": 0}, in_features=4, hidden=[4]))
    before = dict(model.named_parameters())

    divide_experts(model, "over_workers")

    assert {name: id(weight) for name, weight in model.named_parameters()} == {n: id(w) for n, w in before.items()}
    with whole_experts(model):
        assert travel_curves(model, train_s=1.0) == {}


def test_alone_a_run_with_divided_experts_is_one_with_all(train: Any, make_experiment: Any, tmp_path: Path) -> None:
    runs: dict[str, RunResult] = {
        placement: train(
            make_experiment(tmp_path, "training.max_steps=4", f"training.experts={placement}"), tmp_path / placement
        )
        for placement in ("replicated", "over_workers")
    }

    reports = [run.report.values() for run in runs.values() if run.report is not None]
    assert len(reports) == 2
    assert reports[0] == reports[1]
