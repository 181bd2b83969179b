"""DividedExperts: the experts of a layer, each held by one worker; rows travel to them, and what they make comes back.

GShard: Lepikhin et al., ICLR 2021, https://arxiv.org/abs/2006.16668. There every expert has a capacity, so that all
exchanges are of one size. Here no row is left out: counts travel first, as in FastMoE (He et al. 2021,
https://arxiv.org/abs/2103.13262). Both are followed by what is commonly said of them; the papers were not at hand.
"""

# E experts, D input width, H expert width, W workers, K slots of this worker,
# N rows here, M rows of all workers for this worker's experts

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import cast

import torch
from torch import Tensor, nn

from recmoe.axes import Described, describe
from recmoe.moe.experts.stack import Divisible, ExpertStack
from recmoe.moe.linear import SidedInput, compute_dtype, rows_of
from recmoe.workers import Box, DividedTensor, Travel, exchange

Compute = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class DividedExperts(nn.Module):
    """A worker's own experts, and the way to those of the others; see ``ExpertStack``.

    Example: experts a, b and c, and two workers. Worker 0 holds a and b, worker 1 holds c::

            worker 0: rows for a, b | c       →  0 computes a and b on the rows of both, 1 computes c
            worker 1: rows for a, b | c          ← every worker gets what was made of its rows, in their order

    All workers call it equally often and in one order, with or without rows. Experts without weights, such as the input
    itself, are computed where the rows are.

    A worker's loss is the mean over its own rows, and gradients of other parameters are means over workers. An expert
    gets those of the rows of all workers, which are summed: its gradient is that sum divided by W.

    Args:
        stack: all experts, alike in every worker; this worker's are copied, and its weights emptied.
        rank: of this worker.
        num_workers: W; at most as many as there are experts with weights.
    """

    def __init__(self, stack: ExpertStack, *, rank: int, num_workers: int) -> None:
        super().__init__()
        assert isinstance(stack, Divisible), "a stack that can be divided"
        self.names = stack.names
        self.input_of_expert = stack.input_of_expert
        self.num_experts = stack.num_experts
        self.out_features = stack.out_features
        self.rank = rank
        self.travel = Travel()
        # In a tuple, that it is no part of this module.
        self._stack = (cast(nn.Module, stack),)
        self.experts_of_worker = shares_of(stack, num_workers)
        assert all(self.experts_of_worker), "an expert for every worker, at least"
        # By worker: the inputs that its experts read, and which of these each does.
        inputs = [[stack.input_of_expert[expert] for expert in experts] for experts in self.experts_of_worker]
        self._reads = [list(dict.fromkeys(read)) for read in inputs]
        self._slots = [[reads.index(index) for index in read] for reads, read in zip(self._reads, inputs, strict=True)]
        held = set(chain.from_iterable(self.experts_of_worker))
        self.at_home = [expert for expert in range(stack.num_experts) if expert not in held]
        self.own = cast(nn.Module, stack.part(self.experts_of_worker[rank]))
        self.passing = cast(nn.Module, stack.part(self.at_home)) if self.at_home else None
        self._divided = self._parts(stack)
        for parameter in self.own.parameters():
            parameter.register_hook(lambda grad: grad / num_workers)  # type: ignore[no-untyped-call]
        self.let_go()

    @property
    def is_batched(self) -> bool:
        """Whether the form in use is ``batched``."""
        return cast(ExpertStack, self.own).is_batched

    @property
    def whole(self) -> nn.Module:
        """The stack of all experts, whose weights are empty but in ``whole_experts``."""
        return self._stack[0]

    def let_go(self) -> None:
        """Empty the weights of the whole stack."""
        for parameter in self.whole.parameters():
            parameter.data = parameter.new_empty(0)

    def divided(self) -> Mapping[str, DividedTensor]:
        """By the names of the whole stack's parameters; see ``HoldsParts``."""
        return self._divided

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """y_BH of every expert on all rows of its input, which travel once to every worker that reads them."""
        own = cast(ExpertStack, self.own)

        def compute(arrived: Sequence[Tensor]) -> list[Tensor]:
            by_input = dict(zip(self._reads[self.rank], arrived, strict=True))
            return own([by_input.get(index, arrived[0]) for index in range(len(inputs))])

        there = [[rows_of(inputs[index]) for index in read] for read in self._reads]
        outputs = self._computed(there, self._slots, compute)
        passed = [] if self.passing is None else cast(ExpertStack, self.passing)(inputs)
        return self._in_order(outputs, passed)

    def each(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """Expert by expert, each on an input of its own with any number of rows; no other rows travel."""
        own = cast(ExpertStack, self.own)
        there = [[rows_of(inputs[expert]) for expert in experts] for experts in self.experts_of_worker]
        outputs = self._computed(there, [list(range(len(rows))) for rows in there], own.each)
        passed = [] if self.passing is None else cast(ExpertStack, self.passing).each([inputs[e] for e in self.at_home])
        return self._in_order(outputs, passed)

    def batched(self, inputs: Sequence[Tensor | SidedInput]) -> Tensor:
        """y_EBH of every expert on all rows of its input."""
        return torch.stack(self(inputs))

    def _computed(
        self, there: Sequence[Sequence[Tensor]], slots: Sequence[Sequence[int]], compute: Compute
    ) -> list[Tensor]:
        """What every expert with weights makes of the rows sent to it.

        Args:
            there: by worker, the rows for each of its slots.
            slots: by worker, the slot that each of its experts reads.
            compute: from the rows of all workers by slot here to the outputs of the experts here.
        """
        sizes = [[len(rows_ND) for rows_ND in of_worker] for of_worker in there]
        num_slots = len(there[self.rank])
        x_ND = torch.cat(list(chain.from_iterable(there)))
        x_ND = x_ND.to(compute_dtype(next(self.own.parameters())))
        counts_WK = exchange(
            torch.tensor(list(chain.from_iterable(sizes)), device=x_ND.device),
            sent=[len(of_worker) for of_worker in there],
            received=[num_slots] * len(there),
            travel=self.travel,
        )
        arriving = counts_WK.view(len(there), num_slots).tolist()
        sent = [sum(of_worker) for of_worker in sizes]
        self.travel.num_rows += sum(sent) - sent[self.rank]
        x_MD = exchange(x_ND, sent=sent, received=[sum(counts) for counts in arriving], travel=self.travel)
        by_worker = _split(x_MD, arriving)
        made = compute([torch.cat([of_worker[slot] for of_worker in by_worker]) for slot in range(num_slots)])
        of_worker_from_expert = zip(
            *(
                torch.split(y_NH, [counts[slot] for counts in arriving])
                for y_NH, slot in zip(made, slots[self.rank], strict=True)
            ),
            strict=True,
        )
        returned = [[sizes[worker][slot] for slot in read] for worker, read in enumerate(slots)]
        y_NH = exchange(
            torch.cat(list(chain.from_iterable(of_worker_from_expert))).to(x_MD.dtype),
            sent=[sum(counts[slot] for slot in slots[self.rank]) for counts in arriving],
            received=[sum(of_worker) for of_worker in returned],
            travel=self.travel,
        )
        return list(chain.from_iterable(_split(y_NH, returned)))

    def _in_order(self, outputs: Sequence[Tensor], passed: Sequence[Tensor]) -> list[Tensor]:
        places = [*chain.from_iterable(self.experts_of_worker), *self.at_home]
        found = dict(zip(places, [*outputs, *passed], strict=True))
        return [found[expert].to(outputs[0].dtype) for expert in range(self.num_experts)]

    def _parts(self, stack: ExpertStack) -> dict[str, DividedTensor]:
        """Which worker holds what of the whole stack's parameters."""
        described = describe(self.whole)
        here = {one.name: f"own.{name}" for name, one in describe(self.own).items()}
        names_of_worker = [[stack.names[expert] for expert in experts] for experts in self.experts_of_worker]
        divided = {}
        for name, weight in self.whole.named_parameters():
            boxes = {
                worker: box
                for worker, names in enumerate(names_of_worker)
                if (box := _box(described[name], tuple(weight.shape), names)) is not None
            }
            own = here[described[name].name] if self.rank in boxes else None
            divided[name] = DividedTensor(tuple(weight.shape), boxes, own)
        return divided


def shares_of(stack: ExpertStack, num_workers: int) -> list[list[int]]:
    """By worker: the experts that it holds, in their order, as many as the others or one less; none without weights."""
    assert isinstance(stack, Divisible), "a stack that can be divided"
    parts = (cast(nn.Module, stack.part([expert])) for expert in range(stack.num_experts))
    have_weights = [expert for expert, part in enumerate(parts) if any(True for _ in part.parameters())]
    bounds = [len(have_weights) * worker // num_workers for worker in range(num_workers + 1)]
    return [have_weights[first:last] for first, last in pairwise(bounds)]


def _split(values: Tensor, sizes: Sequence[Sequence[int]]) -> list[Sequence[Tensor]]:
    """Rows worker by worker, and slot by slot."""
    pieces = torch.split(values, list(chain.from_iterable(sizes)))
    ends = list(accumulate((len(of_worker) for of_worker in sizes), initial=0))
    return [pieces[first:last] for first, last in pairwise(ends)]


def _box(described: Described, shape: tuple[int, ...], names: Sequence[str]) -> Box | None:
    """What experts of these names, which follow each other, have of a parameter."""
    for axis, labels in enumerate(described.axes):
        if labels is not None and any(name in labels for name in names):
            places = [labels.index(name) for name in names if name in labels]
            start = [places[0] if other == axis else 0 for other in range(len(shape))]
            size = [len(places) if other == axis else width for other, width in enumerate(shape)]
            return tuple(start), tuple(size)
    is_own = any(f"[{name}]" in described.name for name in names)
    return ((0,) * len(shape), shape) if is_own else None
