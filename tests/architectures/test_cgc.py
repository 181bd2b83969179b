"""CGC: who owns and who sees which expert."""

import re

import pytest
import torch

from recmoe.architectures import CGCConfig, PLEConfig
from recmoe.architectures.cgc import own_and_shared_mask
from recmoe.errors import ConfigError


def test_task_sees_its_own_experts_and_the_shared_ones() -> None:
    mask = own_and_shared_mask([2, 1], 1)

    assert mask == [[True, True, False, True], [False, False, True, True]]


def test_number_for_all_tasks_holds_for_each() -> None:
    model = CGCConfig(num_task_experts=2, num_shared_experts=1).build(in_features=3, task_names=["ctr", "cvr"])

    assert model.layer.expert_names == ("ctr.0", "ctr.1", "cvr.0", "cvr.1", "shared.0")


def test_numbers_by_name_follow_the_order_of_the_tasks() -> None:
    config = CGCConfig(num_task_experts={"cvr": 1, "ctr": 2}, num_shared_experts=1, expert_hidden=(4,))

    model = config.build(in_features=3, task_names=["ctr", "cvr"])

    assert model.layer.gate_names == ("ctr", "cvr")
    assert model.layer.expert_names == ("ctr.0", "ctr.1", "cvr.0", "shared.0")


@pytest.mark.parametrize("config_class", [CGCConfig, PLEConfig])
def test_numbers_that_do_not_fit_the_tasks_are_refused(config_class: type[CGCConfig] | type[PLEConfig]) -> None:
    config = config_class(num_task_experts={"ctr": 1, "like": 2})
    message = (
        "num_task_experts must give one number for each of the tasks ctr, cvr, share; "
        "missing: cvr, share; unknown: like"
    )

    with pytest.raises(ConfigError, match=re.escape(message)):
        config.build(in_features=3, task_names=["ctr", "cvr", "share"])


def test_task_gradient_never_touches_the_experts_of_another_task() -> None:
    torch.manual_seed(0)
    config = CGCConfig(num_task_experts={"ctr": 2, "cvr": 1}, num_shared_experts=1, expert_hidden=(8,))
    model = config.build(in_features=3, task_names=["ctr", "cvr"])

    model(torch.randn(20, 3))[0][1].sum().backward()

    gradient_EOD = model.layer.experts.weights_EOD[0].grad
    assert gradient_EOD is not None
    assert [bool(gradient.any()) for gradient in gradient_EOD] == [False, False, True, True]
