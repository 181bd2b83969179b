"""SparsePipeline: training steps that send the next batch's ids ahead, by torchrec's pipeline."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from recmoe.embeddings.fused import TorchrecTables
from recmoe.embeddings.logical import find_tables, unwrap
from recmoe.features.batch import Batch

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec import KeyedJaggedTensor
    from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
    from torchrec.distributed.types import ShardedModule
    from torchrec.streamable import Pipelineable


class PipelineOptimizer(Protocol):
    """What the pipeline calls before the forward and after the backward pass."""

    def zero_grad(self) -> None:
        """Before the forward pass."""
        ...

    def step(self) -> None:
        """After the backward pass."""
        ...


@dataclass(frozen=True)
class _Item(Pipelineable):
    """A batch on its way, and its ids in torchrec's form."""

    batch: Batch
    jagged: dict[str, KeyedJaggedTensor]
    tables: TorchrecTables

    def to(self, device: torch.device, non_blocking: bool) -> "_Item":
        assert non_blocking, "the pipeline never waits for a copy"
        batch = self.batch.to(device)
        return _Item(batch, self.tables.jagged(batch), self.tables)

    def record_stream(self, stream: torch.Stream) -> None:
        self.batch.record_stream(stream)
        for jagged in self.jagged.values():
            jagged.record_stream(stream)


class _Entry(nn.Module):
    """The way from a batch to its look-up, and nothing else: what torchrec traces to find the ids.

    The rest of the model needs not be traceable so.
    """

    def __init__(self, collections: nn.ModuleDict) -> None:
        super().__init__()
        self.collections = collections

    def forward(self, item: _Item) -> Any:
        return [collection(item.jagged[name]) for name, collection in self.collections.items()]


class _Taken(NamedTuple):
    """A batch before its step."""

    batch: Batch
    prepared: Batch


class SparsePipeline:
    """Steps a sharded model, always with the ids of the batch after this one on their way.

    The look-up of the model's forward pass takes the ids that were sent, whatever it is given.

    Args:
        model: sharded.
        forward: from a batch through the model to the loss and losses_T.
        prepare: what happens to the batch of a step before its ids are sent.
        optimizer: called before the forward and after the backward pass.
        device: the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        forward: Callable[[Batch], tuple[Tensor, Tensor]],
        prepare: Callable[[Batch, int], Batch],
        optimizer: PipelineOptimizer,
        device: torch.device,
    ) -> None:
        tables = find_tables(model)[1]
        assert isinstance(tables, TorchrecTables)
        self._model = model
        self._tables = tables
        self._prepare = prepare
        self._pipeline: Any = TrainPipelineSparseDist(
            _Entry(tables.collections), optimizer, device, custom_model_fwd=lambda item: forward(item.batch)
        )
        self._taken: deque[_Taken] = deque()
        self._step = 0
        self._source: Iterator[Batch] | None = None
        self._items: Iterator[_Item] = iter(())

    def step(self, batches: Iterator[Batch], step: int) -> Tensor:
        """Step the next batch; its losses_T. The two after it are taken, too."""
        self._step = step
        if self._source is not batches:
            self._source, self._items = batches, self._feed(batches)
        losses_T: Tensor = self._pipeline.progress(self._items)
        self._taken.popleft()
        return losses_T

    def _feed(self, batches: Iterator[Batch]) -> Iterator[_Item]:
        """The batches that were taken before a pause, then new ones."""
        for taken in tuple(self._taken):
            yield self._item(taken.prepared)
        for batch in batches:
            prepared = self._prepare(batch, self._step + len(self._taken))
            self._taken.append(_Taken(batch, prepared))
            yield self._item(prepared)

    def _item(self, batch: Batch) -> _Item:
        return _Item(batch, self._tables.jagged(batch), self._tables)

    def left_out(self) -> list[str]:
        """After a step: the sharded modules whose ids were not sent ahead, by their name in the model."""
        members = self._pipeline._pipelined_modules
        return [
            name
            for name, module in unwrap(self._model).named_modules()
            if isinstance(module, ShardedModule) and not any(module is member for member in members)
        ]

    def pause(self) -> None:
        """Give the model its own look-up back; batches already taken come first when it goes on."""
        if self._source is None:
            return
        self._source = None
        self._pipeline.detach()
        self._pipeline.reset()

    def drop(self) -> list[Batch]:
        """Forget the batches that were taken and not stepped, and hand them out as they were taken."""
        taken = [taken.batch for taken in self._taken]
        self._taken.clear()
        return taken
