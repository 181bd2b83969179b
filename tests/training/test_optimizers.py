import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.training.optimizers import AdamWConfig, ConstantSchedule, ScheduleConfig, set_learning_rate


def factors(schedule: dict[str, object], *, num_steps: int) -> list[float]:
    made = TypeAdapter(ScheduleConfig).validate_python(schedule)
    return [made.factor(step, num_steps) for step in range(num_steps + 1)]


def test_rate_rises_to_the_full_one_in_equal_steps() -> None:
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]

    assert factors({"kind": "constant", "warmup_steps": 3}, num_steps=6) == expected
    assert ConstantSchedule().factor(0, 5) == 1.0


def test_linear_schedule_falls_in_equal_steps_after_the_warmup() -> None:
    schedule = {"kind": "linear", "warmup_steps": 1, "final": 0.2}

    assert factors(schedule, num_steps=5) == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_schedule_is_half_way_down_in_the_middle() -> None:
    found = factors({"kind": "cosine", "warmup_steps": 2, "final": 0.5}, num_steps=6)

    # cos 45° = 0.7071: 0.5 + 0.25 * 1.7071 after a quarter.
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 0.926777, 0.75, 0.573223, 0.5], abs=1e-6)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
def test_warmup_takes_half_of_a_short_run_at_most(kind: str) -> None:
    found = factors({"kind": kind, "warmup_steps": 55}, num_steps=20)

    assert found[:10] == pytest.approx([step / 11 for step in range(1, 11)])
    assert found[10] == 1.0


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
def test_schedule_of_a_run_that_is_all_warmup_stays_in_range(kind: str) -> None:
    assert all(0 <= share <= 1 for share in factors({"kind": kind, "warmup_steps": 10}, num_steps=4))


def test_weight_decay_spares_biases() -> None:
    linear = nn.Linear(2, 1)
    nn.init.ones_(linear.weight)
    nn.init.ones_(linear.bias)
    optimizer = AdamWConfig(lr=0.5, weight_decay=0.2).build(linear.parameters())
    for parameter in linear.parameters():
        parameter.grad = torch.zeros_like(parameter)

    optimizer.step()

    torch.testing.assert_close(linear.weight.detach(), torch.full((1, 2), 1 - 0.5 * 0.2))
    assert linear.bias.tolist() == [1.0]


def test_first_step_moves_every_weight_by_the_rate() -> None:
    linear = nn.Linear(2, 1, bias=False)
    nn.init.ones_(linear.weight)
    optimizer = AdamWConfig(lr=1.0).build(linear.parameters())
    linear.weight.grad = torch.tensor([[3.0, -0.01]])

    set_learning_rate(optimizer, 0.25)
    optimizer.step()

    torch.testing.assert_close(linear.weight.detach(), torch.tensor([[0.75, 1.25]]))


def test_model_without_biases_has_one_group() -> None:
    optimizer = AdamWConfig().build(nn.Linear(2, 1, bias=False).parameters())

    assert len(optimizer.param_groups) == 1
