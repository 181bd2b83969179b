"""M3oE: the paper's fusion row by row, with and without a domain, and experts that go with their owners."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.domains import Domains
from recmoe.architectures.m3oe import M3oE
from recmoe.axes import RowLabel, describe
from recmoe.moe.experts import MlpExperts
from recmoe.moe.linear import SidedInput, id_group

DOMAIN_B = torch.tensor([2, 0, 1, 3, 0, 3])


def network_of(*, num_domains: int = 3, tasks: tuple[str, ...] = ("click", "buy")) -> M3oE:
    torch.manual_seed(0)
    network = M3oE(
        in_features=3,
        task_names=tasks,
        domains=Domains("page" if num_domains else None, num_domains),
        num_shared_experts=2,
        star_hidden=5,
        representation=4,
        expert_hidden=(5, 4),
    )
    for parameter in network.parameters():
        parameter.data.normal_(std=0.5)
    return network.double()


def expert_row(experts: MlpExperts, index: int, e_M: Tensor) -> Tensor:
    for weight_EOD, bias_EO in zip(experts.weights_EOD, experts.biases_EO, strict=True):
        e_M = torch.relu(weight_EOD[index] @ e_M + bias_EO[index])
    return e_M


def star_row(layer: nn.Module, x_D: Tensor, domain: int) -> Tensor:
    if not domain:
        return layer.shared.weight @ x_D + layer.shared.bias
    weight_OD = (1 + layer.own_POD[domain - 1]) * layer.shared.weight
    return weight_OD @ x_D + layer.shared.bias + layer.own_PO[domain - 1]


def norm_row(parts: nn.Sequential, x_D: Tensor) -> Tensor:
    z = parts[0].weight @ x_D + parts[0].bias
    return torch.relu((z - z.mean()) / torch.sqrt(z.var(correction=0) + 1e-5) * parts[1].weight + parts[1].bias)


def balanced(outputs: list[Tensor], own: int, share: Tensor) -> Tensor:
    """The own expert with its share, the others with the rest of it in equal parts."""
    if len(outputs) == 1:
        return outputs[0]
    others = [y for index, y in enumerate(outputs) if index != own]
    return share * outputs[own] + (1 - share) * sum(others) / len(others)


def fused_row(network: M3oE, x_D: Tensor, domain: int) -> list[Tensor]:
    e_M = norm_row(network.after_star, star_row(network.star, x_D, domain)) + norm_row(network.skip, x_D)
    num_tasks, numbers = len(network.task_names), {name: torch.sigmoid(x) for name, x in network.fusion.items()}
    shared = [expert_row(network.shared, index, e_M) for index in range(2)]
    of_tasks = [expert_row(network.of_tasks, index, e_M) for index in range(num_tasks)]
    logits = star_row(network.gate, e_M.detach(), domain)
    h = []
    for task in range(num_tasks):
        odds = torch.exp(logits[2 * task : 2 * task + 2])
        mixture = sum(odd / odds.sum() * y for odd, y in zip(odds, shared, strict=True))
        if network.of_domains is not None:
            of_domains = [expert_row(network.of_domains, index, e_M) for index in range(network.domains.num)]
            mean = sum(of_domains) / len(of_domains)
            own = balanced(of_domains, domain - 1, numbers.get("domain_own")) if domain else mean
            mixture = mixture + numbers["domain_share"] * own
        h.append(mixture + numbers["task_share"] * balanced(of_tasks, task, numbers.get("task_own")))
    return h


@pytest.mark.parametrize("num_domains", [0, 1, 3])
@pytest.mark.parametrize("tasks", [("click",), ("click", "buy"), ("click", "buy", "rate")], ids=len)
def test_mixtures_and_gradients_equal_the_fusion_row_by_row(num_domains: int, tasks: tuple[str, ...]) -> None:
    network = network_of(num_domains=num_domains, tasks=tasks)
    domain_B = DOMAIN_B.clamp(max=num_domains)
    x_BD = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    upstream_TBH = torch.randn(len(tasks), 6, 4, dtype=torch.float64)
    leaves = [x_BD, *network.parameters()]

    h, _ = network(x_BD, {id_group("page"): domain_B})

    rows = zip(x_BD, domain_B.tolist(), strict=True)
    expected_TBH = torch.stack([torch.stack(fused_row(network, x_D, domain)) for x_D, domain in rows]).transpose(0, 1)
    torch.testing.assert_close(torch.stack(h), expected_TBH)
    torch.testing.assert_close(
        torch.autograd.grad((torch.stack(h) * upstream_TBH).sum(), leaves),
        torch.autograd.grad((expected_TBH * upstream_TBH).sum(), leaves),
    )


def test_gates_of_the_pairs_of_domain_and_task_are_reported() -> None:
    network = network_of()
    x_BD = torch.randn(1, 3, dtype=torch.float64).expand(4, 3)

    _, (use,) = network(x_BD, {id_group("page"): torch.tensor([0, 1, 1, 2])})

    torch.testing.assert_close(use.weights_BGE.sum(2), torch.ones(4, 2, dtype=torch.float64))
    assert use.gates == ("click", "buy")
    torch.testing.assert_close(use.weights_BGE[1], use.weights_BGE[2])
    assert not torch.allclose(use.weights_BGE[0], use.weights_BGE[1])
    assert not torch.allclose(use.weights_BGE[1], use.weights_BGE[3])


def test_gate_sends_no_gradient_into_what_it_reads() -> None:
    network = network_of()
    x_BD = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)

    _, (use,) = network(x_BD, {id_group("page"): DOMAIN_B})
    use.weights_BGE[..., 0].sum().backward()

    assert x_BD.grad is None
    assert bool(network.gate.shared.weight.grad.any())


def test_sided_input_equals_the_concatenated_one() -> None:
    network = network_of().float()
    x = SidedInput(shared_RS=torch.randn(2, 2), own_CI=torch.randn(6, 1), request_C=torch.tensor([0, 0, 1, 1, 0, 1]))
    groups = {id_group("page"): DOMAIN_B}

    h, _ = network(x, groups)

    torch.testing.assert_close(h, network(x.concatenated(), groups)[0], rtol=0, atol=1e-6)


def test_experts_and_gates_of_a_domain_go_with_its_id() -> None:
    axes = {one.name: one.axes for one in describe(network_of()).values()}

    pages = tuple(RowLabel("page", row) for row in (1, 2, 3))
    assert axes["of_domains.weights_EOD.0"][0] == pages
    assert axes["gate.own_POD"][:2] == (
        pages,
        tuple((task, expert) for task in ("click", "buy") for expert in ("shared.0", "shared.1")),
    )
    assert axes["star.own_POD"][0] == pages


def test_layer_norm_of_the_loop_is_that_of_torch() -> None:
    parts = network_of().skip
    x_D = torch.randn(3, dtype=torch.float64)

    expected = functional.layer_norm(parts[0](x_D), (4,), parts[1].weight, parts[1].bias)

    torch.testing.assert_close(norm_row(parts, x_D), torch.relu(expected))
