"""What the loops written from the papers have in common.

They go row by row, expert by expert, in float64, and share nothing with the modules but the parameters themselves.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recmoe.moe.experts import MlpExperts

WIDTH = 5
HIDDEN = (5, 4)
Paper = Callable[[Tensor], list[Tensor]]
"""From one row x_D to one h_H per task."""


def run_expert(experts: MlpExperts, index: int, x_D: Tensor) -> Tensor:
    """f_e(x): a ReLU network."""
    y = x_D
    for weight_EOD, bias_EO in zip(experts.weights_EOD, experts.biases_EO, strict=True):
        y = torch.relu(weight_EOD[index] @ y + bias_EO[index])
    return y


def run_gate(gate: nn.Module, x_D: Tensor) -> Tensor:
    """w(x) = softmax(W · x), over the k largest logits where the gate is top-k."""
    logits = gate.weight_VD @ x_D
    if not gate.is_sparse:
        return torch.exp(logits) / torch.exp(logits).sum()
    chosen = sorted(range(len(logits)), key=lambda expert: -logits[expert].item())[: gate.num_used]
    total = sum(torch.exp(logits[expert]) for expert in chosen)
    return torch.stack([torch.exp(logits[v]) / total if v in chosen else logits[v] * 0 for v in range(len(logits))])


def mix(weights_V: Tensor, outputs: list[Tensor]) -> Tensor:
    """Σ w · y, term by term."""
    assert len(weights_V) == len(outputs)
    total = torch.zeros_like(outputs[0])
    for weight, output in zip(weights_V, outputs, strict=True):
        total = total + weight * output
    return total


def assert_equal_to_paper(module: nn.Module, paper: Paper, *, num_rows: int, num_tasks: int) -> None:
    """Same representations, same gradient of every parameter and of the input."""
    x_BD = torch.randn(num_rows, WIDTH, dtype=torch.float64, requires_grad=True)
    upstream_TBH = torch.randn(num_tasks, num_rows, HIDDEN[-1], dtype=torch.float64)
    leaves = [x_BD, *module.parameters()]
    for key, parameter in module.named_parameters():
        if "biases" in key:
            # No representation is all zero, where the logits of the next gate would tie and no gradient pass.
            parameter.data.abs_().add_(0.1)

    h, _ = module(x_BD)
    expected_BTH = torch.stack([torch.stack(paper(x_D)) for x_D in x_BD])

    h_TBH, expected_TBH = torch.stack(h), expected_BTH.transpose(0, 1)
    torch.testing.assert_close(h_TBH, expected_TBH, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad((h_TBH * upstream_TBH).sum(), leaves)
    # An expert that a batch of one row did not choose has no gradient in the loop and a zero one in the module.
    expected = torch.autograd.grad(
        (expected_TBH * upstream_TBH).sum(), leaves, allow_unused=True, materialize_grads=True
    )
    assert any(gradient.any() for gradient in gradients)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-12)
