"""ReadySteps: real training steps on batches that are ready, for any layout."""

# B rows, K sparse keys, L label columns

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout
from recmoe.model import ModelConfig, build_training_model
from recmoe.planning.rates import zipf_ids
from recmoe.products import autocast, fast_products
from recmoe.tasks.funnel import TaskSet
from recmoe.training.clipping import make_clipping
from recmoe.training.loop import TrainingConfig
from recmoe.training.runtime import Runtime
from recmoe.training.step import Update, make_stepper

NUM_BATCHES = 4
"""Different batches, so that rows do not stay in the cache from one step to the next."""
NUM_WARMUP = 3
"""Steps before the clock starts: buffers are allocated and kernels chosen in them."""


@dataclass(frozen=True)
class ReadySteps:
    """A model with its optimizers, built and placed as training does, that steps on synthetic batches.

    Args:
        layout: tables and columns; the ids are drawn by Zipf.
        ids_per_row: by sparse key, 1 by default; every row has as many.
    """

    layout: InputLayout
    tasks: TaskSet
    model: ModelConfig
    training: TrainingConfig
    precision: Literal["fp32", "bf16"]
    runtime: Runtime
    tables: TablesConfig = field(default_factory=TablesConfig)
    ids_per_row: Mapping[str, float] | None = None
    zipf: float = 1.1

    def step_s(self, *, min_s: float, min_steps: int = 8) -> float:
        """Seconds of one step: the lower quartile of at least so many steps and seconds.

        What other programs on the machine take now and then is no part of a step.
        """
        step = self._step()
        for _ in range(NUM_WARMUP):
            step()
        times: list[float] = []
        while len(times) < min_steps or sum(times) < min_s:
            started_s = time.perf_counter()
            step()
            if self.runtime.device.type == "cuda":
                torch.cuda.synchronize(self.runtime.device)
            times.append(time.perf_counter() - started_s)
        return statistics.quantiles(times, n=4)[0]

    def _step(self) -> Callable[[], object]:
        model = build_training_model(
            layout=self.layout,
            tasks=self.tasks,
            config=self.model,
            tables=lambda layout: self.tables.build(layout=layout, seed=0),
        )
        placed = place(model, config=self.tables, device=self.runtime.device)
        optimizer = self.training.dense_optimizer.build(parameter for _, parameter in dense_parameters(placed.model))
        stepper = make_stepper(
            placed.model,
            losses=self._losses(placed.model),
            prepare=model.prepare,
            update=Update(
                dense_optimizer=optimizer,
                table_optimizer=placed.table_optimizer,
                lr=self.training.dense_optimizer.lr,
                schedule=self.training.schedule,
                clipping=make_clipping(self.training.clip_norm, model=placed.model, optimizer=optimizer),
            ),
            pipelining=self.training.pipeline,
            device=self.runtime.device,
        )
        batches = itertools.cycle([batch.to(self.runtime.device) for batch in self._batches()])

        def step() -> None:
            with fast_products(self.runtime.device):
                stepper.step(batches, step=0, num_steps=1)

        return step

    def _losses(self, model: nn.Module) -> Callable[[Batch], tuple[Tensor, Tensor]]:
        def losses(batch: Batch) -> tuple[Tensor, Tensor]:
            with autocast(self.precision, self.runtime.device):
                return model(batch)  # type: ignore[no-any-return]

        return losses

    def _batches(self) -> Sequence[Batch]:
        generator = torch.Generator().manual_seed(0)
        num_rows = {spec.name: spec.num_rows for spec in self.layout.tables}
        size = self.training.batch_size
        counts = [round((self.ids_per_row or {}).get(key.name, 1.0)) for key in self.layout.sparse]
        ids = [
            zipf_ids(num_rows[key.table], NUM_BATCHES * size * count, exponent=self.zipf, generator=generator)
            for key, count in zip(self.layout.sparse, counts, strict=True)
        ]
        lengths_KB = torch.tensor(counts, dtype=torch.int32).unsqueeze(1).expand(-1, size).contiguous()
        return [
            Batch(
                dense_BF=torch.randn(size, len(self.layout.dense), generator=generator),
                lengths_KB=lengths_KB,
                values=torch.cat([all_N.chunk(NUM_BATCHES)[turn] for all_N in ids]),
                labels_BL=self._labels(generator),
                ages=self._ages(dict(zip([key.name for key in self.layout.sparse], counts, strict=True)), generator),
            )
            for turn in range(NUM_BATCHES)
        ]

    def _ages(self, counts: Mapping[str, int], generator: torch.Generator) -> Tensor | None:
        aged = [one for one in self.layout.sequences if one.has_ages]
        num_ages = sum(counts[one.keys[0]] for one in aged) * self.training.batch_size
        return 1000.0 * torch.rand(num_ages, generator=generator) if aged else None

    def _labels(self, generator: torch.Generator) -> Tensor:
        shape = (self.training.batch_size, len(self.model.label_columns(self.tasks)))
        return (torch.rand(shape, generator=generator) < 0.1).float()
