"""Experts: MLPs of one shape with their weights stacked, computed in the form that suits the device."""

# E experts, G groups, B rows, D input width, O width of a layer, H width of the last layer

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

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
        return self.each([inputs[group] for group in self.group_of_expert])

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Form ``loop``: expert by expert, each on an input of its own with any number of rows.

        Args:
            inputs: one per expert.

        Returns:
            One output per expert, with the rows of its input.
        """
        dtype = compute_dtype(self.weights_EOD[0])
        # unbind, not indexing: its backward writes one gradient for all experts instead of a full-size one for each.
        layers = [
            (weight_EOD.to(dtype).unbind(0), bias_EO.to(dtype).unbind(0))
            for weight_EOD, bias_EO in zip(self.weights_EOD, self.biases_EO, strict=True)
        ]
        outputs = []
        for expert, x in enumerate(lowered(inputs, dtype)):
            for weights, biases in layers:
                x = self._activate(linear(x, weights[expert], biases[expert]))
            assert isinstance(x, Tensor)
            outputs.append(x)
        return outputs

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """Form ``batched``: y_EBH, with one wide matmul per different input, then one batched matmul per layer."""
        firsts = []
        expert = 0
        dtype = compute_dtype(self.weights_EOD[0])
        for x, count in self._runs(lowered(inputs, dtype)):
            weight_OD = self.weights_EOD[0][expert : expert + count].flatten(0, 1)
            bias_O = self.biases_EO[0][expert : expert + count].flatten(0, 1)
            firsts.append(linear(x, weight_OD, bias_O).view(-1, count, self.weights_EOD[0].shape[1]))
            expert += count
        y_BEO = firsts[0] if len(firsts) == 1 else torch.cat(firsts, dim=1)
        y_EBO = self._activate(y_BEO).transpose(0, 1)
        for weight_EOD, bias_EO in zip(self.weights_EOD[1:], self.biases_EO[1:], strict=True):
            y_EBO = self._activate(torch.baddbmm(bias_EO.unsqueeze(1), y_EBO, weight_EOD.transpose(1, 2)))
        return y_EBO

    def _runs(self, inputs: Sequence[Tensor | SidedInput]) -> list[tuple[Tensor | SidedInput, int]]:
        """Inputs with the number of experts that read them, groups with the same input object joined."""
        runs: list[tuple[Tensor | SidedInput, int]] = []
        for x, count in zip(inputs, self.experts_per_group, strict=True):
            if count == 0:
                continue
            if runs and runs[-1][0] is x:
                runs[-1] = (x, runs[-1][1] + count)
            else:
                runs.append((x, count))
        return runs

    def _activate(self, y: Tensor) -> Tensor:
        return functional.dropout(functional.relu_(y), self.dropout, self.training)
