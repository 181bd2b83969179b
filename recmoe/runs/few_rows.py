"""What metalearn and adapt share: a copy of a finished model that learns, and batches of some rows."""

# N rows of a split, n rows of a domain, T tasks

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.parquet import ParquetStream
from recmoe.embeddings.logical import dense_parameters, dense_state
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.experiment import ExperimentConfig
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.growth.carry import carry_over
from recmoe.growth.dense_names import name_dense
from recmoe.growth.earlier import WarmStart
from recmoe.model import TrainingModel, build_training_model
from recmoe.runs.encoder import keep_rows
from recmoe.runs.folder import ENCODED
from recmoe.runs.origin import Origin

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Copy:
    """A finished model, copied, with what is minimised around it."""

    model: TrainingModel
    is_new: Mapping[str, Tensor]
    """By name of a dense weight that begins anew with a new task, whole or in part: 1 where it does. Empty without."""


def copy_of(
    origin: Origin, config: ExperimentConfig, encoder: FeatureEncoder, *, new_tasks: Collection[str] = ()
) -> Copy:
    """The model of a bundle by a warm start from it, with towers for new tasks.

    Its losses have the weights of the config: what balances tasks over many steps has nothing to go by in a few. Where
    there are new tasks, theirs are the only losses.

    Args:
        config: that of the bundle, but for new tasks.
        encoder: that of the bundle, which reads the labels of the new tasks too.

    Raises:
        BundleError, DataError, ConfigError: the bundle cannot be read.
    """
    tasks = config.task_set()
    section = config.model.with_summed_losses()
    model = build_training_model(
        layout=encoder.layout, tasks=tasks, config=section, tables=PlainTables, seed=config.seed
    )
    if new_tasks:
        # A new tower begins at zero, as in any training: its task starts at its base rate in every row.
        model.model.begin_at_zero()
        weights = [tasks.weights[name] if name in new_tasks else 0.0 for name in tasks.names]
        model.weighting = section.weighting.build(weights=weights, outputs=[tasks.loss_kinds[n] for n in tasks.names])
    placed = place(model, config=TablesConfig(backend="plain"), device=torch.device("cpu"))
    shapes = {name: tuple(tensor.shape) for name, tensor in dense_state(model).items()}
    initial = {name: weight.detach().clone() for name, weight in dense_parameters(model)}
    with torch.no_grad():
        # What the warm start leaves alone is told by marks that no weight has.
        for _, weight in dense_parameters(model):
            weight.fill_(torch.nan)
    with closing(WarmStart(origin.source, origin.root, None).open()) as earlier:
        carry_over(
            earlier,
            placed=placed,
            named=name_dense(shapes, ranker=model.ranker, config=section, encoder=encoder),
            dense_optimizer=torch.optim.SGD(model.parameters()),
            encoder=encoder,
            tasks=tasks,
        )
    is_new = {}
    with torch.no_grad():
        for name, weight in dense_parameters(model):
            mark = weight.isnan()
            if mark.any():
                weight.copy_(torch.where(mark, initial[name], weight))
                is_new[name] = mark.float()
    return Copy(model, is_new if new_tasks else {})


def encoded(stream: ParquetStream, encoder: FeatureEncoder, *, cache_dir: Path) -> EncodedRows:
    """All rows of a stream, encoded once.

    Raises:
        DataError, SchemaError: as training would find it, with file and row; or the disk is full.
    """
    cache = EncodedCache(cache_dir / ENCODED, encoder)
    return keep_rows(stream, encoder, cache, split="few rows", is_quiet=True)


def drawn(
    rows: EncodedRows, of_n: Rows, *, batch_size: int, block: int, random: np.random.Generator
) -> Iterator[Batch]:
    """Batches of some of the rows, without end; all of them where there are no more than a batch.

    Args:
        of_n: numbers of rows, rising.
        block: neighbours among these that stay together; see ``data.shuffle_block``.
    """
    num_blocks = max(1, len(of_n) // block)
    size = max(1, batch_size // block)
    while True:
        if len(of_n) <= batch_size:
            yield rows.batch(of_n)
            continue
        starts = np.sort(random.choice(num_blocks, size, replace=False)) * block
        yield rows.batch(of_n[(starts[:, None] + np.arange(block)).reshape(-1)])
