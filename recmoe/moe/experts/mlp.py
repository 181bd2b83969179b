"""MLP experts: networks of one shape with their weights stacked, computed in the form that suits the device."""

# E experts, B rows, P rows of all experts, D input width, O width of a layer, H width of the last layer

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import WeightAxes
from recmoe.moe.experts.joint import joint_experts
from recmoe.moe.experts.stack import ExpertKind, Form
from recmoe.moe.grouped import RowGroups, grouped_linear
from recmoe.moe.linear import SidedInput, compute_dtype, linear, select_parts

Run = tuple[Tensor | SidedInput, int]
"""An input, and how many neighbouring experts read it."""

CACHED_FLOATS = 2**19
"""What all experts make of some rows in one layer, at most, if it is to stay in a core's cache: 2 MiB."""


class MlpExperts(nn.Module):
    """E multi-layer perceptrons of one shape; see ``ExpertStack``.

    ReLU, then dropout, follow every layer, the last one included. Every expert draws its own
    weights, as ``nn.Linear`` does: uniform in ±1/√(inputs of the layer).

    Args:
        reads: by name of an expert, which of the inputs it reads.
        in_features: D.
        hidden: width of each layer, at least one; the last is H.
        dropout: share of activations dropped in training.
        form: ``loop`` goes expert by expert, so that activations stay in a CPU's cache; ``batched`` goes layer by
            layer with few large kernels, for a GPU; ``auto`` takes the one that suits where the weights are.
    """

    def __init__(
        self,
        *,
        reads: Mapping[str, int],
        in_features: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        assert len(reads) > 0, "at least one expert is needed"
        assert len(hidden) > 0, "an expert has at least one layer"
        self.names = tuple(reads)
        self.input_of_expert = tuple(reads.values())
        self.num_experts = len(reads)
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

    @property
    def is_grouped(self) -> bool:
        """Whether chosen rows are computed in groups: in the batched form, but not in float64."""
        return self.is_batched and self.weights_EOD[0].dtype != torch.float64

    def weight_axes(self) -> WeightAxes:
        """Every weight holds all experts."""
        layers = range(len(self.weights_EOD))
        return {
            **{f"weights_EOD.{layer}": (self.names, None, None) for layer in layers},
            **{f"biases_EO.{layer}": (self.names, None) for layer in layers},
        }

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """y_BH of every expert on all rows of its input."""
        if self.is_batched or self._are_few(inputs):
            return list(self.batched(inputs).unbind(0))
        return self._looped(self._runs(inputs))

    def _are_few(self, inputs: Sequence[Tensor | SidedInput]) -> bool:
        """Whether few large products beat many small ones on a CPU too.

        They do in bf16, whose kernels take their time to begin, where nothing learns and a layer fits in the cache.
        """
        if self.form != "auto" or torch.is_grad_enabled() or compute_dtype(self.weights_EOD[0]) != torch.bfloat16:
            return False
        widest = max(weight_EOD.shape[1] for weight_EOD in self.weights_EOD)
        return bool(_num_rows(inputs[0]) * self.num_experts * widest <= CACHED_FLOATS)

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Expert by expert, each on an input of its own with any number of rows."""
        dtype = compute_dtype(self.weights_EOD[0])
        return self._looped([(x.to(dtype), 1) for x in inputs])

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH, with one wide matmul per run of experts that read the same input, then one batched per layer."""
        y_EBO = self._activate(self._first_layer(inputs)).transpose(0, 1)
        for weight_EOD, bias_EO in zip(self.weights_EOD[1:], self.biases_EO[1:], strict=True):
            y_EBO = self._activate(torch.baddbmm(bias_EO.unsqueeze(1), y_EBO, weight_EOD.transpose(1, 2)))
        return y_EBO

    def grouped(self, x_PD: Tensor, groups: RowGroups) -> Tensor:
        """y_PH of rows that lie expert after expert."""
        dtype = compute_dtype(self.weights_EOD[0])
        y = x_PD.to(dtype)
        for weight_EOD, bias_EO in zip(self.weights_EOD, self.biases_EO, strict=True):
            y = self._activate(grouped_linear(y, weight_EOD.to(dtype), bias_EO.to(dtype), groups))
        return y

    def merged(
        self, inputs: Sequence[Tensor | SidedInput], *, weights: Sequence[Tensor], seen: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """One h_BH per gate, of experts merged row by row; see ``MergesWeights``.

        No matrix is merged: a layer is linear in its weights, so the mean over experts of what it makes of a row is
        what the merged layer makes of it. A row costs as much as all experts together; the gates share the first layer.
        """
        first_BEO = self._first_layer(inputs)
        outputs = []
        for p_BV, experts in zip(weights, seen, strict=True):
            sees_all = len(experts) == self.num_experts
            y_BO = self._activate(_mean(first_BEO if sees_all else select_parts(first_BEO, experts, dim=1), p_BV))
            for weight_EOD, bias_EO in zip(self.weights_EOD[1:], self.biases_EO[1:], strict=True):
                weight_VOD, bias_VO = (
                    part if sees_all else select_parts(part, experts, dim=0) for part in (weight_EOD, bias_EO)
                )
                y_BO = self._activate(_mean(_every(y_BO, weight_VOD, bias_VO), p_BV))
            outputs.append(y_BO)
        return outputs

    def part(self, experts: Sequence[int]) -> "MlpExperts":
        """Some of its experts; see ``Divisible``."""
        # Nothing is drawn on the meta device.
        with torch.device("meta"):
            part = MlpExperts(
                reads={self.names[expert]: self.input_of_expert[expert] for expert in experts},
                in_features=self.weights_EOD[0].shape[2],
                hidden=[weight_EOD.shape[1] for weight_EOD in self.weights_EOD],
                dropout=self.dropout,
                form=self.form,
            )
        for layer, (weight_EOD, bias_EO) in enumerate(zip(self.weights_EOD, self.biases_EO, strict=True)):
            part.weights_EOD[layer] = nn.Parameter(weight_EOD.detach()[list(experts)])
            part.biases_EO[layer] = nn.Parameter(bias_EO.detach()[list(experts)])
        return part

    def _first_layer(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_BEO before the activation."""
        runs = self._runs(inputs)
        counts = [count for _, count in runs]
        layer = zip(runs, self.weights_EOD[0].split(counts), self.biases_EO[0].split(counts), strict=True)
        firsts = [_every(x, weight_EOD, bias_EO) for (x, _), weight_EOD, bias_EO in layer]
        return firsts[0] if len(firsts) == 1 else torch.cat(firsts, dim=1)

    def _runs(self, inputs: Sequence[Tensor | SidedInput]) -> list[Run]:
        # Autocast would cast an input anew, and its gradient back, for every expert that reads it.
        dtype = compute_dtype(self.weights_EOD[0])
        cast = {index: inputs[index].to(dtype) for index in dict.fromkeys(self.input_of_expert)}
        return [(cast[index], len(list(run))) for index, run in groupby(self.input_of_expert)]

    def _looped(self, runs: Sequence[Run]) -> list[Tensor]:
        dtype = compute_dtype(self.weights_EOD[0])
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
        firsts: list[Tensor | SidedInput] = [x] * len(weights_EOD[0])
        if isinstance(x, SidedInput) and x.is_known:
            firsts = [*self._activate(_every(x, weights_EOD[0], biases_EO[0])).unbind(1)]
            weights_EOD, biases_EO = weights_EOD[1:], biases_EO[1:]
        for expert, y in enumerate(firsts):
            for weight_EOD, bias_EO in zip(weights_EOD, biases_EO, strict=True):
                y = self._activate(linear(y, weight_EOD[expert], bias_EO[expert]))
            assert isinstance(y, Tensor)
            outputs.append(y)
        return outputs

    def _activate(self, y: Tensor) -> Tensor:
        return functional.dropout(functional.relu_(y), self.dropout, self.training)


def _num_rows(x: Tensor | SidedInput) -> int:
    return x.shape[0] if isinstance(x, Tensor) else x.num_rows


def _every(x: Tensor | SidedInput, weight_EOD: Tensor, bias_EO: Tensor) -> Tensor:
    """y_BEO: the layer of every expert on the same rows, by one wide product."""
    return linear(x, weight_EOD.flatten(0, 1), bias_EO.flatten()).view(-1, *bias_EO.shape)


def _mean(y_BVO: Tensor, p_BV: Tensor) -> Tensor:
    return torch.einsum("bv,bvo->bo", p_BV.to(y_BVO.dtype), y_BVO)


class MlpExpertConfig(ExpertKind):
    """A multi-layer perceptron with ReLU."""

    can_merge: ClassVar[bool] = True
    kind: Literal["mlp"] = "mlp"

    def build(
        self, *, reads: Mapping[str, int], in_features: int, hidden: Sequence[int], dropout: float, form: Form
    ) -> MlpExperts:
        """The experts of these names, with weights drawn from torch's global generator."""
        return MlpExperts(reads=reads, in_features=in_features, hidden=hidden, dropout=dropout, form=form)
