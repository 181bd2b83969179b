"""Experts: MLPs of one shape with their weights stacked, computed in the form that suits the device."""

# E experts, G groups, B rows, D input width, O width of a layer, H width of the last layer

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.joint_experts import joint_experts
from recmoe.moe.linear import SidedInput, compute_dtype, linear, lowered

Form = Literal["auto", "loop", "batched"]


class Experts(nn.Module):
    """E multi-layer perceptrons in groups; the experts of a group read the same input.

    ReLU, then dropout, follow every layer, the last one included. Every expert draws its own
    weights, as ``nn.Linear`` does: uniform in ±1/√(inputs of the layer).

    Args:
        experts_per_group: how many experts each group owns; a group may own none.
        in_features: D.
        hidden: width of each layer, at least one; the last is H.
        dropout: share of activations dropped in training.
        form: ``loop`` goes expert by expert, so that activations stay in a CPU's cache; ``batched`` goes layer by
            layer with few large kernels, for a GPU; ``auto`` takes the one that suits where the weights are.
    """

    def __init__(
        self,
        *,
        experts_per_group: Sequence[int],
        in_features: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        assert sum(experts_per_group) > 0, "at least one expert is needed"
        assert len(hidden) > 0, "an expert has at least one layer"
        self.experts_per_group = tuple(experts_per_group)
        self.group_of_expert = tuple(group for group, count in enumerate(experts_per_group) for _ in range(count))
        self.num_experts = len(self.group_of_expert)
        self.out_features = hidden[-1]
        self.dropout = dropout
        self.form = form
        self.weights_EOD = nn.ParameterList()
        self.biases_EO = nn.ParameterList()
        for num_inputs, width in pairwise((in_features, *hidden)):
            bound = 1.0 / math.sqrt(num_inputs)
            weight_EOD = torch.empty(self.num_experts, width, num_inputs).uniform_(-bound, bound)
            bias_EO = torch.empty(self.num_experts, width).uniform_(-bound, bound)
            self.weights_EOD.append(nn.Parameter(weight_EOD))
            self.biases_EO.append(nn.Parameter(bias_EO))

    @property
    def is_batched(self) -> bool:
        """Whether the form in use is ``batched``."""
        return self.form == "batched" or (self.form == "auto" and self.weights_EOD[0].is_cuda)

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Compute every expert on all rows of its group's input.

        Args:
            inputs: one per group, x_BD or the sided input that stands for it.

        Returns:
            y_BH per expert.
        """
        if self.is_batched:
            return list(self.batched(inputs).unbind(0))
        return self.each(self._per_expert(inputs))

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Form ``loop``: expert by expert, each on an input of its own with any number of rows.

        Args:
            inputs: one per expert; neighbours with the same object share a product in the backward pass.

        Returns:
            One output per expert, with the rows of its input.
        """
        dtype = compute_dtype(self.weights_EOD[0])
        runs = _runs(lowered(inputs, dtype))
        counts = [count for _, count in runs]
        # split, not indexing: its backward writes one gradient for all experts instead of a full-size one for each.
        weights = zip(*(weight_EOD.to(dtype).split(counts) for weight_EOD in self.weights_EOD), strict=True)
        biases = zip(*(bias_EO.to(dtype).split(counts) for bias_EO in self.biases_EO), strict=True)
        outputs = []
        for (x, _), weights_EOD, biases_EO in zip(runs, weights, biases, strict=True):
            if isinstance(x, Tensor) and torch.is_grad_enabled() and not (self.training and self.dropout):
                outputs += joint_experts(x, weights_EOD=weights_EOD, biases_EO=biases_EO)
            else:
                outputs += self._one_by_one(x, weights_EOD, biases_EO)
        return outputs

    def _one_by_one(
        self, x: Tensor | SidedInput, weights_EOD: Sequence[Tensor], biases_EO: Sequence[Tensor]
    ) -> list[Tensor]:
        outputs = []
        for expert in range(len(weights_EOD[0])):
            y = x
            for weight_EOD, bias_EO in zip(weights_EOD, biases_EO, strict=True):
                y = self._activate(linear(y, weight_EOD[expert], bias_EO[expert]))
            assert isinstance(y, Tensor)
            outputs.append(y)
        return outputs

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """Form ``batched``: y_EBH, with one wide matmul per different input, then one batched matmul per layer."""
        dtype = compute_dtype(self.weights_EOD[0])
        runs = _runs(lowered(self._per_expert(inputs), dtype))
        counts = [count for _, count in runs]
        layer = zip(runs, self.weights_EOD[0].split(counts), self.biases_EO[0].split(counts), strict=True)
        firsts = [
            linear(x, weight_EOD.flatten(0, 1), bias_EO.flatten()).view(-1, *bias_EO.shape)
            for (x, _), weight_EOD, bias_EO in layer
        ]
        y_BEO = firsts[0] if len(firsts) == 1 else torch.cat(firsts, dim=1)
        y_EBO = self._activate(y_BEO).transpose(0, 1)
        for weight_EOD, bias_EO in zip(self.weights_EOD[1:], self.biases_EO[1:], strict=True):
            y_EBO = self._activate(torch.baddbmm(bias_EO.unsqueeze(1), y_EBO, weight_EOD.transpose(1, 2)))
        return y_EBO

    def _per_expert(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor | SidedInput]:
        return [inputs[group] for group in self.group_of_expert]

    def _activate(self, y: Tensor) -> Tensor:
        return functional.dropout(functional.relu_(y), self.dropout, self.training)


def _runs(inputs: Sequence[Tensor | SidedInput]) -> list[tuple[Tensor | SidedInput, int]]:
    """Inputs with the number of neighbours that are the same object."""
    runs = [list(run) for _, run in groupby(inputs, key=id)]
    return [(run[0], len(run)) for run in runs]
