"""Sizes: parameters of a model, how many of them a row's predictions depend on, and the work of a row."""

# B rows, K sparse keys, Z logits

import copy
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor, nn

from recmoe.axes import describe
from recmoe.embeddings.logical import dense_parameters
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import MultiTaskRanker, model_layout
from recmoe.planning.work import step_work

NUM_ROWS = 16
"""Rows over which the active parameters are averaged."""


@dataclass(frozen=True)
class Sizes:
    """What a model is made of."""

    parameters: int
    """Of everything but the tables, as it is trained."""
    active: float
    """Of those, what the predictions of a row depend on, in the mean over some rows."""
    table_parameters: int
    flops: float
    """Operations of a row in a training step, forward and backward, as ``recmoe plan`` counts them."""


def sizes_of(config: ExperimentConfig, bundle: ModelBundle, rows: pa.Table) -> Sizes:
    """The sizes of a trained model.

    Args:
        rows: some of the log.
    """
    lengths_K = bundle.encoder.encode(rows, with_labels=False).lengths_KB.double().mean(dim=1).tolist()
    layout, batch_size = bundle.encoder.layout, config.training.batch_size
    work = step_work(
        layout,
        tasks=bundle.tasks,
        model=config.model,
        optimizer=config.tables.optimizer,
        batch_size=batch_size,
        ids_per_row={key.name: length for key, length in zip(layout.sparse, lengths_K, strict=True)},
    )
    tables = model_layout(layout, tasks=bundle.tasks, config=config.model).tables
    return Sizes(
        parameters=work.num_dense_parameters,
        active=active_parameters(bundle.model, bundle.encoder, rows.slice(0, NUM_ROWS)),
        table_parameters=sum(table.num_rows * table.width for table in tables),
        flops=work.flops / batch_size,
    )


def active_parameters(ranker: MultiTaskRanker, encoder: FeatureEncoder, rows: pa.Table) -> float:
    """Dense parameters that the logits of one row depend on, in the mean over the rows.

    A weight counts whole or, where ``recmoe.axes`` knows what its indices stand for, such as experts, slice by slice:
    a hidden unit that is zero for a row is computed nevertheless, an expert that the row's gate left out is not.
    """
    ranker = _without_dead_ends(ranker)
    weights = {name: weight.requires_grad_(True) for name, weight in dense_parameters(ranker)}
    described = {f"model.{name}": one.axes for name, one in describe(ranker.model).items()}
    num_active = 0
    for row in range(rows.num_rows):
        logits_BZ = ranker(encoder.encode(rows.slice(row, 1), with_labels=False)).logits_BZ
        gradients = torch.autograd.grad(logits_BZ.sum(), list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                axes = described.get(name, (None,) * gradient.ndim)
                num_active += _touched(gradient, [axis for axis, labels in enumerate(axes) if labels is None])
    return num_active / int(rows.num_rows)


def _without_dead_ends(ranker: MultiTaskRanker) -> MultiTaskRanker:
    """A copy whose towers let gradients through for every row: a small one may have no unit above zero."""
    copied = copy.deepcopy(ranker)
    for module in list(copied.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.ReLU):
                setattr(module, name, nn.LeakyReLU())
    return copied


def _touched(gradient: Tensor, plain_axes: list[int]) -> int:
    """Numbers in slices that hold a gradient; a slice is whole along the plain axes."""
    is_touched = gradient != 0
    for axis in plain_axes:
        is_touched = is_touched.any(dim=axis, keepdim=True)
    return int(is_touched.expand(gradient.shape).sum())
