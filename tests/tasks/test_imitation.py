"""Distances of a student to its teacher equal loops written from their formulas, in the task's own space."""

import math

import torch
from pydantic import TypeAdapter

from recmoe.features.batch import NO_GROUP
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

LOGITS = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 1.5], [0.1, 0.2]])
TEACHER = torch.tensor([[1.0, 0.5], [-1.0, 0.4], [0.2, -2.0], [0.0, 3.0]])
# Click, purchase: nothing is known of the third row's purchase.
LABELS = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, math.nan], [0.0, 0.0]])


def task_set(**tasks: dict[str, object]) -> TaskSet:
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks))


FUNNEL = task_set(
    ctr={"kind": "binary", "label": "click"},
    cvr={"kind": "binary", "label": "purchase", "space": "click"},
    ctcvr={"kind": "product", "of": ["ctr", "cvr"]},
)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def kl(teacher: float, z: float, temperature: float) -> float:
    """T² · Σ over both outcomes of q · log(q / p)."""
    q, p = sigmoid(teacher / temperature), sigmoid(z / temperature)
    return temperature**2 * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))


def test_probabilities_are_compared_at_the_temperature_and_cvr_among_clicks() -> None:
    for temperature in (1.0, 3.0):
        losses_N = FUNNEL.imitations(("ctr", "cvr", "ctcvr"), LOGITS, TEACHER, LABELS, temperature=temperature)

        expected = [0.0, 0.0, 0.0]
        for (z, zc), (t, tc), (click, _) in zip(LOGITS.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True):
            expected[0] += kl(t, z, temperature) / 4
            expected[1] += kl(tc, zc, temperature) / 4 if click == 1 else 0.0
            product, of_teacher = sigmoid(z) * sigmoid(zc), sigmoid(t) * sigmoid(tc)
            expected[2] += kl(log_odds(of_teacher), log_odds(product), temperature) / 4
        torch.testing.assert_close(losses_N, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_gradient_is_the_difference_of_probabilities_at_temperature_one() -> None:
    logits_BZ = LOGITS.clone().requires_grad_()

    FUNNEL.imitations(("ctr",), logits_BZ, TEACHER, LABELS).sum().backward()

    assert logits_BZ.grad is not None
    expected_B = (torch.sigmoid(LOGITS[:, 0]) - torch.sigmoid(TEACHER[:, 0])) / 4
    torch.testing.assert_close(logits_BZ.grad[:, 0], expected_B)
    assert not logits_BZ.grad[:, 1].any()


def test_temperature_keeps_the_size_of_gradients_between_near_models() -> None:
    sizes = []
    for temperature in (1.0, 100.0):
        logits_BZ = (0.01 * LOGITS).requires_grad_()
        FUNNEL.imitations(("ctr",), logits_BZ, 0.01 * TEACHER, LABELS, temperature=temperature).sum().backward()
        assert logits_BZ.grad is not None
        sizes.append(logits_BZ.grad.norm())

    torch.testing.assert_close(sizes[0], sizes[1], rtol=1e-3, atol=0)


def test_values_are_compared_by_their_squared_difference_on_the_scale() -> None:
    plain = task_set(watch={"kind": "regression", "label": "seconds"})
    amount = task_set(watch={"kind": "regression", "label": "seconds", "transform": "log1p"})
    labels_BL = torch.ones(4, 1)

    of_plain = plain.imitations(("watch",), LOGITS[:, :1], TEACHER[:, :1], labels_BL)
    of_amount = amount.imitations(("watch",), LOGITS, TEACHER, labels_BL)

    squares_BZ = (LOGITS - TEACHER).square()
    torch.testing.assert_close(of_plain, squares_BZ[:, :1].mean(dim=0))
    torch.testing.assert_close(of_amount, (squares_BZ[:, :1] + 0.2 * squares_BZ[:, 1:]).mean(dim=0))


def test_lognormals_are_compared_where_the_teacher_expects_an_amount() -> None:
    spend = task_set(spend={"kind": "zero_inflated_lognormal", "label": "spend"})
    logits_BZ, teacher_BZ = torch.tensor([[0.2, 1.0, 0.5]]), torch.tensor([[-1.0, 2.0, 1.0]])

    losses_N = spend.imitations(("spend",), logits_BZ, teacher_BZ, torch.ones(1, 1))

    s, t = (torch.nn.functional.softplus(logits[0, 2]) for logits in (logits_BZ, teacher_BZ))
    normals = torch.distributions.Normal(2.0, t), torch.distributions.Normal(1.0, s)
    expected = kl(-1.0, 0.2, 1.0) + sigmoid(-1.0) * float(torch.distributions.kl_divergence(*normals))
    torch.testing.assert_close(losses_N, torch.tensor([expected]))


def test_lists_are_compared_by_who_stands_first() -> None:
    order = task_set(order={"kind": "ranking", "label": "click"})
    groups_B = torch.tensor([5, 9, 5, NO_GROUP])
    z_B, teacher_B = LOGITS[:, 0], TEACHER[:, 0]

    losses_N = order.imitations(("order",), LOGITS[:, :1], TEACHER[:, :1], torch.ones(4, 1), groups_B, temperature=2.0)

    expected = 0.0
    for rows in ([0, 2], [1]):
        p, q = (torch.softmax(score_B[rows] / 2, dim=0) for score_B in (z_B, teacher_B))
        expected += 4 * float((q * (q / p).log()).sum())
    torch.testing.assert_close(losses_N, torch.tensor([expected / 4]))


def test_predictions_of_two_draws_are_compared_both_ways_in_all_rows() -> None:
    losses_T = FUNNEL.divergences(LOGITS, TEACHER)

    expected = torch.zeros(2)
    for one, other in zip(LOGITS.tolist(), TEACHER.tolist(), strict=True):
        for task in range(2):
            expected[task] += (kl(one[task], other[task], 1.0) + kl(other[task], one[task], 1.0)) / 2 / 4
    torch.testing.assert_close(losses_T, expected)
    torch.testing.assert_close(FUNNEL.divergences(TEACHER, LOGITS), losses_T)
    torch.testing.assert_close(FUNNEL.divergences(LOGITS, LOGITS), torch.zeros(2))


def test_both_draws_are_moved_towards_each_other() -> None:
    one_BZ, other_BZ = LOGITS.clone().requires_grad_(), TEACHER.clone().requires_grad_()

    FUNNEL.divergences(one_BZ, other_BZ).sum().backward()

    assert one_BZ.grad is not None
    assert other_BZ.grad is not None
    assert torch.equal(torch.sign(one_BZ.grad), torch.sign(LOGITS - TEACHER))
    assert torch.equal(torch.sign(other_BZ.grad), torch.sign(TEACHER - LOGITS))
