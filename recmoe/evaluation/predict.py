"""predict_rows: every row of a split through the model, gathered from all ranks."""

# N rows, B rows of a batch, L label columns, T tasks

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.data.loader import BatchLoader
from recmoe.evaluation.predictions import Predictions
from recmoe.model import MultiTaskRanker
from recmoe.moe.balance import ExpertUsage, expert_usage


@dataclass(frozen=True)
class Scored:
    """What a model makes of a split."""

    predictions: Predictions
    usages: list[ExpertUsage]
    """How the gates of each level used the experts, over all rows."""


@dataclass(frozen=True)
class _Share:
    """Some of the rows: their columns by name, and the gates' use of the experts."""

    columns: dict[str, NDArray[Any]]
    usages: list[ExpertUsage]


def predict_rows(
    ranker: MultiTaskRanker,
    loader: BatchLoader,
    *,
    slices: Sequence[str] = (),
    gather: Callable[[_Share], list[_Share]] = lambda share: [share],
) -> Scored:
    """Score all rows that the ranks' loaders hold; every rank gets the whole result, in file order.

    The model runs in evaluation mode and in float32, as it does when it serves.

    Args:
        slices: raw columns to keep beside the predictions.
        gather: collects one value per rank, in rank order.
    """
    was_training = ranker.training
    ranker.eval()
    try:
        with torch.no_grad():
            parts = [
                _score_batch(ranker, batch, num_rows, slices, extra)
                for batch, num_rows, extra in loader.all_rows(extra_columns=slices)
            ]
    finally:
        ranker.train(was_training)
    whole = _joined(gather(_joined(parts)))
    predictions = Predictions(
        task_names=ranker.tasks.names,
        predictions_NT=whole.columns["/predictions"],
        labels_NT=whole.columns["/labels"],
        weights_NT=whole.columns["/weights"],
        groups_N=whole.columns.get("/groups"),
        slices={name: whole.columns[name] for name in slices},
        spaces=dict(ranker.tasks.spaces),
        kinds=dict(ranker.tasks.kinds),
        measures={
            task: {name: whole.columns[_measure_column(task, name)] for name in names}
            for task, names in ranker.tasks.measure_names.items()
        },
    )
    return Scored(predictions=predictions, usages=whole.usages)


def _score_batch(ranker: MultiTaskRanker, batch: Any, num_rows: int, slices: Sequence[str], extra: Any) -> _Share:
    """The first ``num_rows`` rows of a batch; the others are padding."""
    output = ranker(batch)
    labels_BT, weights_BT = ranker.tasks.targets(batch.labels_BL)
    columns = {
        "/predictions": ranker.tasks.predict(output.logits_BZ)[:num_rows].cpu().numpy(),
        "/labels": labels_BT[:num_rows].cpu().numpy(),
        "/weights": weights_BT[:num_rows].cpu().numpy(),
    }
    for task, measures in ranker.tasks.measures(output.logits_BZ, labels_BT).items():
        columns |= {_measure_column(task, name): m_B[:num_rows].cpu().numpy() for name, m_B in measures.items()}
    if batch.groups_B is not None:
        columns["/groups"] = batch.groups_B[:num_rows].cpu().numpy()
    for name in slices:
        columns[name] = extra[name].to_pandas().to_numpy()
    # A rank without a row of its own still has usages to merge.
    uses = [replace(use, weights_BGE=use.weights_BGE[: max(num_rows, 1)]) for use in output.gate_uses]
    return _Share(columns=columns, usages=[expert_usage(use) for use in uses])


def _measure_column(task: str, name: str) -> str:
    return f"/measures/{task}/{name}"


def _joined(parts: Sequence[_Share]) -> _Share:
    usages = list(parts[0].usages)
    for part in parts[1:]:
        usages = [mine.merge(theirs) for mine, theirs in zip(usages, part.usages, strict=True)]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    return _Share(columns=columns, usages=usages)
