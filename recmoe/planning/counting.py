"""count_step(): what torch computes in a step of any model, by torch's own counter, without computing it."""

# B rows, F dense columns, K sparse keys, L label columns, P sum of the widths of the keys

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from recmoe.embeddings.tables import LookedUp
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey
from recmoe.model import TrainingModel
from recmoe.planning.divided_experts import count_travel

SAMPLE_ROWS = 512
"""Rows of a step that is computed, where shapes hang on values."""

_ATEN = torch.ops.aten
_MULTIPLIED = {
    _ATEN.mul: slice(0, 2), _ATEN.mul_: slice(0, 2), _ATEN.addcmul: slice(1, 3), _ATEN.addcmul_: slice(1, 3)
}  # fmt: skip
"""Elementwise products, and which of their arguments are multiplied."""
_BAGS = {_ATEN._embedding_bag, _ATEN._embedding_bag_forward_only}
"""Sums of rows of a table, where an expert looks its neurons up; what weights them is the seventh argument, if any."""
_WEIGHTS_OF_BAGS = 6
_ADDED_FIRST = {_ATEN.addmm, _ATEN.baddbmm}
"""Products whose first argument is a bias."""


@dataclass(frozen=True)
class StepCounts:
    """Matrix products of one step, forward and backward, and the numbers that flow between them forward."""

    flops: float
    """Operations of matrix products; a multiplication and an addition count as two."""
    num_products: int
    """Matrix products of the forward pass."""
    num_activations: float
    """Numbers that they hand on."""
    num_inputs: float
    """Numbers that they read, weights left out."""
    num_mixed: float
    """Numbers that a weight per row multiplies, as a gate's share does with an expert's output, and a neuron's
    activation with what it looks up."""
    num_shares: float
    """Those weights."""
    num_parameters: int
    """Of the whole model."""
    num_expert_parameters: tuple[int, ...] = ()
    """By worker, of the experts that it holds, where these are divided among workers."""
    num_sent: float = 0.0
    """Numbers that a worker then sends to others forward: its rows to their experts, and what it made of theirs."""


class RandomVectors(nn.Module):
    """In place of tables: random vectors of the right widths, whose gradient is asked for.

    Args:
        layout: of the model, with the weights of the linear part at the end of the rows where it has one.
    """

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        self.layout = layout

    def look_up(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> LookedUp:
        """Pooled vectors, and one per entry of a sequence."""
        del keys
        width = sum(key.width for key in self.layout.pooled)
        entries = {}
        for place, key in enumerate(self.layout.sparse):
            if key.is_sequence:
                entries[key.name] = self._random(batch, int(batch.lengths_KB[place].sum()), key.vector_width)
        return LookedUp(self._random(batch, batch.num_rows, width), entries)

    def _random(self, batch: Batch, num: int, width: int) -> Tensor:
        return torch.randn(num, width, device=batch.dense_BF.device, requires_grad=True)


def count_step(
    make: Callable[[], TrainingModel],
    *,
    ids_per_row: Mapping[str, float],
    num_labels: int,
    batch_size: int,
    expert_workers: int | None = None,
) -> StepCounts:
    """Count a step of a model on ``RandomVectors``.

    On the meta device, where nothing is computed. A model whose shapes hang on values, such as one that computes only
    the experts that a gate has chosen, steps a sample of random rows on the CPU, and the counts are scaled up.

    Args:
        make: builds the model, on the default device.
        ids_per_row: by sparse key; 1 by default.
        num_labels: L.
        expert_workers: workers among which experts are divided; None where every worker has all.

    Raises:
        ConfigError: the experts cannot be divided among so many.
    """
    try:
        return _count(make, ids_per_row, num_labels, batch_size, "meta", expert_workers)
    except (NotImplementedError, RuntimeError):
        # What is wrong with the model itself is raised again here.
        num_rows = min(batch_size, SAMPLE_ROWS)
        counts = _count(make, ids_per_row, num_labels, num_rows, "cpu", expert_workers)
    scale = batch_size / num_rows
    return replace(
        counts,
        flops=scale * counts.flops,
        num_activations=scale * counts.num_activations,
        num_inputs=scale * counts.num_inputs,
        num_mixed=scale * counts.num_mixed,
        num_shares=scale * counts.num_shares,
        num_sent=scale * counts.num_sent,
    )


def _count(
    make: Callable[[], TrainingModel],
    ids_per_row: Mapping[str, float],
    num_labels: int,
    num_rows: int,
    device: str,
    expert_workers: int | None,
) -> StepCounts:
    # The caller's random numbers stay as they were, and two counts of a sample are one.
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model = make()
        travels = [] if expert_workers is None else count_travel(model, num_workers=expert_workers)
        batch = _batch(model.ranker.input_layer.layout, ids_per_row, num_labels, num_rows)
        with FlopCounterMode(display=False) as counter:
            with _Flow(counter.flop_registry) as flow:
                loss, _ = model(batch)
            loss.backward()
    return StepCounts(
        flops=float(counter.get_total_flops()),
        num_products=flow.amounts["products"],
        num_activations=float(flow.amounts["activations"]),
        num_inputs=float(flow.amounts["inputs"]),
        num_mixed=float(flow.amounts["mixed"]),
        num_shares=float(flow.amounts["shares"]),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_expert_parameters=tuple(map(sum, zip(*(travel.num_parameters for travel in travels), strict=True))),
        num_sent=sum(travel.num_sent for travel in travels),
    )


def _batch(layout: InputLayout, ids_per_row: Mapping[str, float], num_labels: int, num_rows: int) -> Batch:
    """Random rows, each with as many ids of a key as the others."""
    counts = [round(ids_per_row.get(key.name, 1.0)) for key in layout.sparse]
    by_key = {key.name: count for key, count in zip(layout.sparse, counts, strict=True)}
    num_ages = num_rows * sum(by_key[sequence.keys[0]] for sequence in layout.sequences if sequence.has_ages)
    return Batch(
        dense_BF=torch.randn(num_rows, len(layout.dense)),
        lengths_KB=torch.tensor(counts, dtype=torch.int32)[:, None].repeat(1, num_rows),
        values=torch.zeros(num_rows * sum(counts), dtype=torch.int64),
        labels_BL=torch.zeros(num_rows, num_labels),
        ages=1000.0 * torch.rand(num_ages),
    )


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers that matrix products and weights per row read and hand on, which torch's counter does not count."""

    def __init__(self, products: Mapping[Any, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.amounts: Counter[str] = Counter()
        self._products = products

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in self._products:
            first = args[1 if operation in _ADDED_FIRST else 0]
            made = result if isinstance(result, Tensor) else result[0]
            self.amounts.update(products=1, activations=made.numel(), inputs=first.numel())
        elif operation in _MULTIPLIED:
            weights = _weight_per_row(*args[_MULTIPLIED[operation]])
            if weights is not None:
                self.amounts.update(mixed=result.numel(), shares=weights.numel())
        elif operation in _BAGS and args[_WEIGHTS_OF_BAGS:] and args[_WEIGHTS_OF_BAGS] is not None:
            num_rows = args[_WEIGHTS_OF_BAGS].numel()
            self.amounts.update(mixed=num_rows * args[0].shape[1], shares=num_rows)
        return result


def _weight_per_row(*factors: Any) -> Tensor | None:
    """The factor that has one number where the other has a row of them, or None."""
    if not all(isinstance(factor, Tensor) and factor.ndim >= 2 for factor in factors):
        return None
    narrow, wide = sorted(factors, key=lambda factor: int(factor.shape[-1]))
    return narrow if narrow.ndim == wide.ndim and narrow.shape[-1] == 1 < wide.shape[-1] else None
