from itertools import permutations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.balancing.fork import Fork, weigh
from recmoe.balancing.rules import BalancingConfig


def weights(kind: str, grad_TS: Tensor, **fields: float) -> Tensor:
    """What a rule makes of gradients."""
    fork = built(kind, num_tasks=len(grad_TS), **fields)
    assert fork.rule is not None
    return weigh(fork.rule, grad_TS @ grad_TS.t())


def built(kind: str, *, num_tasks: int, **fields: float) -> Fork:
    config: BalancingConfig = TypeAdapter(BalancingConfig).validate_python({"kind": kind, **fields})
    fork = config.build(num_tasks=num_tasks)
    assert fork is not None
    return fork


def in_conflict(num_tasks: int = 3, seed: int = 0) -> Tensor:
    """Gradients of which some point against others, of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    grad_TS = torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)
    grad_TS[1] -= 1.5 * grad_TS[0]
    return grad_TS * torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)[:num_tasks, None]


def least_by_search(value: object, num_tasks: int, *, num_rounds: int = 40) -> np.ndarray:
    """The weights ≥ 0 of sum 1 at which a function is least, by trying out ever closer ones."""
    assert callable(value)
    generator = np.random.default_rng(0)
    best, spread = np.full(num_tasks, 1.0 / num_tasks), 1.0
    for _ in range(num_rounds):
        tried = np.abs(best + spread * generator.normal(size=(4000, num_tasks)))
        tried[0] = best
        # Borders are part of the search.
        tried[1:1000][generator.random((999, num_tasks)) < 0.3] = 0.0
        tried = tried[tried.sum(axis=1) > 0]
        tried /= tried.sum(axis=1, keepdims=True)
        best = tried[np.argmin([value(w) for w in tried])]
        spread *= 0.7
    return best


def test_pcgrad_equals_a_loop_written_from_the_paper() -> None:
    grad_TS = in_conflict(2)

    found_T = weights("pcgrad", grad_TS)

    total_S = torch.zeros(6, dtype=torch.float64)
    for task in range(2):
        own_S = grad_TS[task].clone()
        for other in range(2):
            if other != task and own_S @ grad_TS[other] < 0:
                own_S -= (own_S @ grad_TS[other]) / grad_TS[other].square().sum() * grad_TS[other]
        total_S += own_S
    torch.testing.assert_close(found_T @ grad_TS, total_S)


def test_pcgrad_goes_through_the_other_tasks_in_one_of_their_orders() -> None:
    grad_TS = in_conflict(3)

    found_T = weights("pcgrad", grad_TS)

    def projected(task: int, order: tuple[int, ...]) -> Tensor:
        own_S = grad_TS[task].clone()
        for other in order:
            if own_S @ grad_TS[other] < 0:
                own_S -= (own_S @ grad_TS[other]) / grad_TS[other].square().sum() * grad_TS[other]
        return own_S

    others = [[1, 2], [0, 2], [0, 1]]
    totals = [
        projected(0, first) + projected(1, second) + projected(2, third)
        for first in permutations(others[0])
        for second in permutations(others[1])
        for third in permutations(others[2])
    ]
    assert any(torch.allclose(found_T @ grad_TS, total_S) for total_S in totals)


def test_pcgrad_draws_the_same_order_for_the_same_gradients_and_no_random_number_of_others() -> None:
    grad_TS = in_conflict(4)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()

    first_T = weights("pcgrad", grad_TS)
    torch.manual_seed(2)
    second_T = weights("pcgrad", grad_TS)
    torch.manual_seed(1)

    assert torch.equal(first_T, second_T)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_mgda_finds_the_shortest_weighted_mean() -> None:
    grad_TS = in_conflict(3)

    found_T = weights("mgda", grad_TS)

    gram = (grad_TS @ grad_TS.t()).numpy()
    best = least_by_search(lambda w: w @ gram @ w, 3)
    np.testing.assert_allclose(found_T.numpy(), 3 * best, atol=0.02)


def test_mgda_is_where_the_papers_steps_lead_to() -> None:
    gram_TT = in_conflict(3) @ in_conflict(3).t()

    found_T = weights("mgda", in_conflict(3))

    w = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(5_000):
        # Frank and Wolfe's steps towards the task that the mean helps least, with the paper's line search.
        toward = torch.eye(3, dtype=torch.float64)[(gram_TT @ w).argmin()]
        change = toward - w
        length = (-(change @ gram_TT @ w) / (change @ gram_TT @ change).clamp_min(1e-12)).clamp(0.0, 1.0)
        w = w + length * change
    torch.testing.assert_close(found_T, 3 * w, atol=1e-3, rtol=0)


def test_mgda_of_two_tasks_is_the_foot_of_the_perpendicular() -> None:
    grad_TS = torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)

    found_T = weights("mgda", grad_TS)

    # (0.75, 0.25) · gradients = (0.5, 0.5), which is at right angles to the line between them.
    torch.testing.assert_close(found_T, 2 * torch.tensor([0.75, 0.25], dtype=torch.float64), atol=1e-5, rtol=0)


def test_cagrad_finds_the_best_direction_for_the_task_that_gains_least() -> None:
    grad_TS, c = in_conflict(3), 0.5

    found_T = weights("cagrad", grad_TS, c=c)

    gram = (grad_TS @ grad_TS.t()).numpy()
    even = np.full(3, 1 / 3)
    radius = c * np.sqrt(even @ gram @ even)
    w = least_by_search(lambda w: w @ gram @ even + radius * np.sqrt(w @ gram @ w), 3)
    direction = (even + radius / np.sqrt(w @ gram @ w) * w) @ grad_TS.numpy()
    np.testing.assert_allclose(found_T.numpy() @ grad_TS.numpy() * (1 + c) / 3, direction, atol=0.02)


def test_cagrad_without_room_is_the_sum() -> None:
    torch.testing.assert_close(weights("cagrad", in_conflict(3), c=0.0), torch.ones(3, dtype=torch.float64))


def test_nash_mtl_solves_the_equation_of_the_bargain() -> None:
    grad_TS = in_conflict(4)

    found_T = weights("nash_mtl", grad_TS)

    # What each task gains, times its weight, is the same for all.
    shares_T = found_T * (grad_TS @ grad_TS.t() @ found_T)
    torch.testing.assert_close(shares_T, shares_T.mean().expand(4))
    assert (found_T > 0).all()


def test_imtl_g_has_one_projection_on_all_gradients() -> None:
    grad_TS = in_conflict(3)

    found_S = weights("imtl_g", grad_TS) @ grad_TS

    projections_T = (grad_TS @ found_S) / grad_TS.norm(dim=1)
    torch.testing.assert_close(projections_T, projections_T.mean().expand(3))


def test_aligned_mtl_adds_up_gradients_made_orthogonal() -> None:
    grad_TS = in_conflict(3)

    found_S = weights("aligned_mtl", grad_TS) @ grad_TS

    # The orthogonal matrix nearest to the gradients, as long as their shortest principal component.
    left, singular, right = torch.linalg.svd(grad_TS, full_matrices=False)
    torch.testing.assert_close(found_S, (singular.min() * left @ right).sum(dim=0))


@pytest.mark.parametrize("kind", ["pcgrad", "upgrad"])
def test_tasks_that_are_not_in_conflict_are_left_alone_by_rules_against_conflict(kind: str) -> None:
    grad_TS = torch.tensor([[1.0, 0.0, 0.2], [0.3, 2.0, 0.0]], dtype=torch.float64)

    torch.testing.assert_close(weights(kind, grad_TS), torch.ones(2, dtype=torch.float64))


def test_upgrad_adds_up_gradients_projected_onto_what_harms_no_task() -> None:
    grad_TS = in_conflict(3)

    found_S = weights("upgrad", grad_TS) @ grad_TS

    projections = []
    for task in range(3):
        # Where the multipliers of the conditions "harms no task" settle is the projection.
        multipliers_T = torch.zeros(3, dtype=torch.float64)
        for _ in range(5_000):
            harm_T = grad_TS @ (grad_TS[task] + multipliers_T @ grad_TS)
            multipliers_T = (multipliers_T - harm_T / grad_TS.square().sum()).clamp_min(0.0)
        projections.append(grad_TS[task] + multipliers_T @ grad_TS)
        assert (grad_TS @ projections[-1] > -1e-3).all()
    torch.testing.assert_close(found_S, torch.stack(projections).sum(dim=0), atol=5e-3, rtol=0)
    assert (grad_TS @ found_S > -1e-2).all()
    # The sum would harm the first task.
    assert (grad_TS[0] @ grad_TS.sum(dim=0)) < 0


def test_conflict_without_a_way_out_cancels_out_in_nash_mtl() -> None:
    grad_TS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)

    torch.testing.assert_close(weights("nash_mtl", grad_TS) @ grad_TS, torch.zeros(2, dtype=torch.float64))
