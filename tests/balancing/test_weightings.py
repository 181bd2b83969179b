import copy
import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional

from recmoe.balancing.fork import Fork
from recmoe.balancing.weightings import FixedWeightingConfig, UncertaintyWeightingConfig, WeightingConfig
from recmoe.balancing.weightings.dwa import DWAWeighting
from recmoe.balancing.weightings.famo import FAMOWeighting
from recmoe.balancing.weightings.gradnorm import GradNormWeighting

LOSSES = [[2.0, 4.0, 1.0], [1.8, 3.9, 0.9], [1.5, 3.9, 0.7], [1.2, 3.7, 0.8], [1.2, 3.6, 0.5], [1.0, 3.5, 0.6]]


def built(kind: str, *, fork: Fork | None = None, num_tasks: int = 3, **fields: Any) -> nn.Module:
    config: WeightingConfig = TypeAdapter(WeightingConfig).validate_python({"kind": kind, **fields})
    return config.build(weights=[1.0] * num_tasks, outputs=["binary"] * num_tasks, fork=fork)


def test_fixed_weighting_is_the_weighted_sum() -> None:
    weighting = FixedWeightingConfig().build(weights=[1.0, 0.5], outputs=["binary", "regression"])

    assert weighting(torch.tensor([2.0, 4.0])).item() == 4.0


def test_uncertainty_weighting_starts_with_noise_one() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 1.0], outputs=["binary", "regression"])

    assert weighting(torch.tensor([2.0, 4.0])).item() == 4.0


def test_uncertainty_weighting_is_least_where_the_variance_fits_the_loss() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 1.0], outputs=["binary", "regression"])
    weighting.log_variance_T.data = torch.tensor([math.log(2 * 0.3), math.log(4.0)])

    weighting(torch.tensor([0.3, 4.0])).backward()

    torch.testing.assert_close(weighting.log_variance_T.grad, torch.zeros(2))


def test_a_task_of_weight_zero_takes_no_part() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 0.0], outputs=["binary", "binary"])
    losses_T = torch.tensor([2.0, 4.0], requires_grad=True)

    weighting(losses_T).backward()

    assert losses_T.grad is not None
    assert losses_T.grad.tolist() == [1.0, 0.0]
    assert weighting.log_variance_T.grad is not None
    assert weighting.log_variance_T.grad[1] == 0


def test_dwa_equals_the_papers_formula_over_stretches() -> None:
    weighting = DWAWeighting(weights=[1.0, 1.0, 1.0], steps=2, temperature=2.0)

    found = [weighting(torch.tensor(losses)).item() for losses in LOSSES]

    mean_1, mean_2 = (torch.tensor(LOSSES[first : first + 2]).mean(dim=0) for first in (0, 2))
    exps_T = torch.exp(mean_2 / mean_1 / 2.0)
    weights_T = 3 * exps_T / exps_T.sum()
    expected = [sum(losses) for losses in LOSSES[:4]]
    expected += [(weights_T * torch.tensor(losses)).sum().item() for losses in LOSSES[4:]]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    # The second loss hardly falls.
    assert weights_T.argmax() == 1


def test_dwa_equals_torchjds() -> None:
    torchjd = pytest.importorskip("torchjd.scalarization")
    own, other = DWAWeighting(weights=[1.0] * 3, steps=2, temperature=1.0), torchjd.DWA(temperature=1.0)

    for step, losses in enumerate(LOSSES):
        found, expected = own(torch.tensor(losses)), other(torch.tensor(losses))
        if step % 2 == 1:
            other.step()

        torch.testing.assert_close(found, expected)


def test_famo_equals_torchjds_when_the_loss_after_a_step_is_that_of_the_next_batch() -> None:
    torchjd = pytest.importorskip("torchjd.scalarization")
    own, other = FAMOWeighting(weights=[1.0] * 3, lr=0.1, weight_decay=0.01), torchjd.FAMO(3, lr=0.1, weight_decay=0.01)

    for step, losses in enumerate(LOSSES):
        ours_T, theirs_T = (torch.tensor(losses, requires_grad=True) for _ in range(2))
        if step > 0:
            other.update(theirs_T)
        own(ours_T).backward()
        other(theirs_T).backward()

        assert ours_T.grad is not None
        assert theirs_T.grad is not None
        # Here the weights of the losses add up to the number of tasks, there to one.
        torch.testing.assert_close(ours_T.grad, 3 * theirs_T.grad, atol=1e-5, rtol=1e-4)


def test_famo_weighs_a_loss_that_falls_slowly_more_and_more() -> None:
    weighting = FAMOWeighting(weights=[1.0, 1.0], lr=0.1, weight_decay=0.0)

    for step in range(20):
        weighting(torch.tensor([0.9**step, 1.0]))

    assert weighting.logits_T[1] > weighting.logits_T[0] + 0.5


def test_batch_without_a_row_of_a_task_leaves_famo_as_it_was() -> None:
    torch.manual_seed(0)
    weighting = FAMOWeighting(weights=[1.0, 1.0], lr=0.1, weight_decay=0.0)
    for losses in ([1.0, 1.0], [0.9, 1.0]):
        weighting(torch.tensor(losses))

    weighting(torch.tensor([0.9, 0.0]))

    assert weighting.before_T.tolist() == pytest.approx([0.9, 1.0])
    assert torch.isfinite(weighting.dynamic_T).all()


def test_gradnorm_equals_a_step_of_the_papers_algorithm() -> None:
    alpha, lr = 1.5, 0.05
    weighting = GradNormWeighting(weights=[1.0] * 3, alpha=alpha, lr=lr)
    grad_TS = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    weighting(torch.tensor(LOSSES[0]))
    weighting(torch.tensor(LOSSES[1]))

    weighting.observe(grad_TS @ grad_TS.t())

    weights_T = torch.ones(3, requires_grad=True)
    lengths_T = weights_T * grad_TS.norm(dim=1)
    mean = lengths_T.mean().detach()
    ratios_T = torch.tensor(LOSSES[1]) / torch.tensor(LOSSES[0])
    targets_T = mean * (ratios_T / ratios_T.mean()).pow(alpha)
    # In units of the mean length.
    ((lengths_T - targets_T).abs().sum() / mean).backward()
    assert weights_T.grad is not None
    moved_T = weights_T.detach() - lr * weights_T.grad
    torch.testing.assert_close(weighting.dynamic_T, 3 * moved_T / moved_T.sum())


def test_gradnorm_makes_gradients_at_a_fork_equally_long_where_all_learn_at_one_rate() -> None:
    fork = Fork(num_tasks=2)
    weighting = built("gradnorm", fork=fork, num_tasks=2, alpha=0.0, lr=0.005)
    h_BH = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)

    for _ in range(300):
        (first_BH,), (second_BH,) = fork([h_BH])
        weighting(torch.stack([5.0 * first_BH.square().sum(), second_BH.square().sum()])).backward()

    lengths_T = fork.gram_TT.diagonal().sqrt()
    assert lengths_T[0] / lengths_T[1] == pytest.approx(1.0, abs=0.1)
    # 5 : 1, with a sum of 2.
    assert weighting.dynamic_T.tolist() == pytest.approx([1 / 3, 5 / 3], abs=0.05)


def test_task_without_a_gradient_keeps_its_weight_under_gradnorm() -> None:
    weighting = GradNormWeighting(weights=[1.0] * 3, alpha=1.0, lr=0.1)
    weighting(torch.tensor([1.0, 2.0, 0.0]))

    weighting.observe(torch.diag(torch.tensor([4.0, 1.0, 0.0])))

    assert weighting.dynamic_T[2] == 1.0
    assert weighting.dynamic_T[0] < 1.0 < weighting.dynamic_T[1]
    assert weighting.dynamic_T.sum().item() == pytest.approx(3.0)


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm", "dwa", "famo"])
def test_weighting_that_goes_on_from_its_state_is_the_one_that_was_never_stopped(kind: str) -> None:
    fields = {"steps": 2} if kind == "dwa" else {}

    def steps(weighting: nn.Module, fork: Fork, rows: list[list[float]]) -> list[float]:
        optimizer = torch.optim.SGD(weighting.parameters(), lr=0.1) if list(weighting.parameters()) else None
        found = []
        for losses in rows:
            shared = torch.ones(3, requires_grad=True)
            copies = fork([shared])
            loss = weighting(torch.stack([(x[0] * value).mean() for x, value in zip(copies, losses, strict=True)]))
            loss.backward()
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            found.append(loss.item())
        return found

    forks = [Fork(num_tasks=3) for _ in range(3)]
    whole, first, second = (built(kind, fork=fork, **fields) for fork in forks)
    expected = steps(whole, forks[0], LOSSES)
    steps(first, forks[1], LOSSES[:3])

    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found = steps(second, forks[2], LOSSES[3:])

    assert found == expected[3:]
    assert expected[3:] != [sum(losses) for losses in LOSSES[3:]]


@pytest.mark.parametrize("kind", ["fixed", "uncertainty", "gradnorm", "dwa", "famo"])
def test_every_weighting_begins_with_the_sum_of_the_losses_or_their_shares(kind: str) -> None:
    losses_T = torch.tensor([2.0, 4.0, 1.0], requires_grad=True)

    weighting = built(kind, fork=Fork(num_tasks=3))
    weighting(losses_T).backward()

    assert losses_T.grad is not None
    assert losses_T.grad.sum().item() == pytest.approx(3.0)
    if kind != "famo":
        assert losses_T.grad.tolist() == [1.0, 1.0, 1.0]
    else:
        # The smaller a loss, the larger its share, so that all fall by the same percentage.
        torch.testing.assert_close(losses_T.grad, 3 * functional.normalize(1 / losses_T.detach(), p=1, dim=0))


@pytest.mark.parametrize("kind", ["gradnorm", "dwa", "famo"])
def test_validation_leaves_the_weights_alone(kind: str) -> None:
    weighting = built(kind, fork=Fork(num_tasks=3))
    weighting(torch.tensor(LOSSES[0]))
    before = copy.deepcopy(weighting.state_dict())

    weighting.eval()
    weighting(torch.tensor(LOSSES[1]))

    torch.testing.assert_close(dict(weighting.state_dict()), dict(before), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["dwa", "famo"])
def test_task_of_weight_zero_is_no_task_to_a_dynamic_weighting(kind: str) -> None:
    config: WeightingConfig = TypeAdapter(WeightingConfig).validate_python(
        {"kind": kind, **({"steps": 1} if kind == "dwa" else {})}
    )
    with_zero = config.build(weights=[1.0, 0.0, 2.0], outputs=["binary"] * 3)
    without = config.build(weights=[1.0, 2.0], outputs=["binary"] * 2)

    for losses in LOSSES:
        found, expected = with_zero(torch.tensor(losses)), without(torch.tensor(losses)[[0, 2]])

        torch.testing.assert_close(found, expected)


def curves_of(weighting: Any) -> dict[str, float]:
    curves: dict[str, float] = dict(weighting.curves(["ctr", "cvr"]))
    return curves


def test_weights_that_were_found_are_curves() -> None:
    weighting = DWAWeighting(weights=[1.0, 0.5], steps=5, temperature=1.0)

    assert curves_of(weighting) == {"train/ctr/loss_weight": 1.0, "train/cvr/loss_weight": 0.5}
    assert curves_of(FixedWeightingConfig().build(weights=[1.0, 0.5], outputs=["binary"] * 2)) == {}


def test_uncertainty_shows_what_losses_are_multiplied_with() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 1.0], outputs=["binary", "regression"])
    weighting.log_variance_T.data = torch.tensor([math.log(2.0), 0.0])

    assert curves_of(weighting) == {"train/ctr/loss_weight": 0.5, "train/cvr/loss_weight": 0.5}
