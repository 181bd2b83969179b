"""PEPNet: the paper's equations row by row, gates that stop gradients, groups of features from the config."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.pepnet import GateNU, PEPNet, PEPNetConfig
from recmoe.moe.linear import SidedInput
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

TASKS = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python({"ctr": {"kind": "binary", "label": "click"}}))


def network_of(hidden: tuple[int, ...] = (5, 4)) -> PEPNet:
    torch.manual_seed(0)
    return PEPNet(
        in_features=3,
        domain="page",
        domain_features=2,
        personal="who",
        personal_features=1,
        task_names=("click", "buy"),
        hidden=hidden,
        gate_hidden=6,
        gamma=2.0,
    )


def gate_row(gate: GateNU, group_P: Tensor, x_D: Tensor) -> Tensor:
    """Eq. 1-2: x' = relu(x · W + b), δ = γ · sigmoid(x' · W' + b'), on [group; x]."""
    weight = torch.cat([gate.of_group.weight, gate.of_input.weight], dim=1)
    inner = torch.relu(weight @ torch.cat([group_P, x_D]) + gate.of_group.bias)
    return 2.0 * torch.sigmoid(gate.out.weight @ inner + gate.out.bias)


def test_representations_equal_the_equations_row_by_row() -> None:
    network = network_of().double().requires_grad_(False)
    x_BD = torch.randn(4, 3, dtype=torch.float64)
    page_BP, who_BP = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)

    h, _ = network(x_BD, {"page": page_BP, "who": who_BP})

    for row in range(4):
        o = gate_row(network.domain_gate, page_BP[row], x_BD[row]) * x_BD[row]
        for task in range(2):
            y = o
            for layer, gate in zip(network.layers[task], network.gates[task], strict=True):
                y = torch.relu(layer.weight @ (gate_row(gate, who_BP[row], o) * y) + layer.bias)
            torch.testing.assert_close(h[task][row], y)


def test_gate_sends_no_gradient_into_what_it_scales() -> None:
    torch.manual_seed(0)
    gate = GateNU(group_features=2, in_features=3, hidden=4, out_features=3, gamma=2.0)
    group_BP, x_BD = torch.randn(5, 2, requires_grad=True), torch.randn(5, 3, requires_grad=True)

    gate(group_BP, x_BD).sum().backward()

    assert x_BD.grad is None
    assert group_BP.grad is not None
    assert group_BP.grad.abs().sum() > 0


def test_sided_groups_equal_the_concatenated_ones() -> None:
    network = network_of()
    request_C = torch.tensor([0, 0, 1, 1, 0])
    x = SidedInput(shared_RS=torch.randn(2, 2), own_CI=torch.randn(5, 1), request_C=request_C)
    page = SidedInput(shared_RS=torch.randn(2, 2), own_CI=torch.empty(5, 0), request_C=request_C)
    who = SidedInput(shared_RS=torch.randn(2, 0), own_CI=torch.randn(5, 1), request_C=request_C)

    h, _ = network(x, {"page": page, "who": who})

    plain, _ = network(x.concatenated(), {"page": page.concatenated(), "who": who.concatenated()})
    torch.testing.assert_close(h, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", ["domain", "personal"])
def test_group_that_is_not_there_is_a_problem_of_the_config(key: str) -> None:
    problems = list(PEPNetConfig(**{key: "pages"}).task_problems(TASKS, ("page", "who")))

    assert problems == [
        (key, "no such group of features: pages (there are: page, who); name its features in model.groups")
    ]
