"""predict_rows: every row of a split through the model, gathered from all ranks."""

# N rows, B rows of a batch, L label columns, T tasks

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.data.loader import BatchLoader
from recmoe.evaluation.by_group import Shares, gate_shares
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.segments import segmented
from recmoe.features.batch import Batch
from recmoe.model import MultiTaskRanker
from recmoe.moe.balance import ExpertUsage
from recmoe.moe.level_use import LevelUse, level_use

PROBED_BATCHES = 16
"""Batches of a worker, spread over its rows, in which experts are compared; fewer than twice as many."""
PROBED_ROWS = 4096
"""Rows of a worker on which they are compared; fewer than twice as many."""

GATES = "/gates/"
"""Before the names of columns that hold shares of gates."""


@dataclass(frozen=True)
class Scored:
    """What a model makes of a split."""

    predictions: Predictions
    levels: list[LevelUse]
    """How the gates of each level used the experts, and how alike these are, by segment; none without gates."""
    shares: Shares = field(default_factory=dict)
    """What each gate gave in every row; kept where slices are, to be cut by them."""

    @property
    def usages(self) -> list[ExpertUsage]:
        """How the gates of each level used the experts, over all rows."""
        return [level.usage for level in self.levels]


@dataclass(frozen=True)
class _Share:
    """Some of the rows: their columns by name, and the gates' use of the experts."""

    columns: dict[str, NDArray[Any]]
    levels: list[LevelUse]


def predict_rows(
    ranker: MultiTaskRanker,
    loader: BatchLoader,
    *,
    slices: Sequence[str] = (),
    max_slice_values: int = 20,
    keeps_slices: bool = True,
    gather: Callable[[_Share], list[_Share]] = lambda share: [share],
) -> Scored:
    """Score all rows that the ranks' loaders hold; every rank gets the whole result, in file order.

    The model runs in evaluation mode and in float32, as it does when it serves. What the gates do is summed on the way;
    that costs no second pass, but for the experts of some 4,096 rows of a worker, to compare them.

    Args:
        slices: raw columns by whose values the use of experts is cut.
        max_slice_values: per column; see ``EvaluationConfig``.
        keeps_slices: the columns stay next to the predictions, to cut metrics by.
        gather: collects one value per rank, in rank order.
    """
    num_batches = -(-loader.stream.num_rows // (loader.world_size * loader.batch_size))
    probe_every = max(1, num_batches // PROBED_BATCHES)
    num_probed = PROBED_ROWS // min(max(num_batches, 1), PROBED_BATCHES)
    was_training = ranker.training
    ranker.eval()
    try:
        with torch.no_grad():
            parts = [
                _score_batch(
                    ranker,
                    batch,
                    num_rows,
                    {name: extra[name].to_pandas().to_numpy() for name in slices} if extra is not None else {},
                    num_probed=0 if index % probe_every else num_probed,
                    keeps_slices=keeps_slices,
                )
                for index, (batch, num_rows, extra) in enumerate(loader.all_rows(extra_columns=slices))
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
        slices={name: whole.columns[name] for name in slices if keeps_slices},
        spaces=dict(ranker.tasks.spaces),
        kinds=dict(ranker.tasks.kinds),
        measures={
            task: {name: whole.columns[_measure_column(task, name)] for name in names}
            for task, names in ranker.tasks.measure_names.items()
        },
    )
    shares = {name.removeprefix(GATES): column for name, column in whole.columns.items() if name.startswith(GATES)}
    return Scored(predictions, [level.most_frequent(max_slice_values) for level in whole.levels], shares)


def _score_batch(
    ranker: MultiTaskRanker,
    batch: Batch,
    num_rows: int,
    slices: Mapping[str, NDArray[Any]],
    *,
    num_probed: int,
    keeps_slices: bool,
) -> _Share:
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
    if keeps_slices:
        columns |= slices
    if keeps_slices and slices:
        shares = gate_shares(output.gate_uses, num_rows)
        columns |= {f"{GATES}{name}": p_BV.cpu().numpy() for name, p_BV in shares.items()}
    uses = output.all_uses()
    rows = segmented(slices if uses else {}, num_rows)
    counts = dict(zip(ranker.tasks.names, weights_BT.unbind(1), strict=True))
    levels = [level_use(use, num_rows=num_rows, segmented=rows, counts=counts, num_probed=num_probed) for use in uses]
    return _Share(columns=columns, levels=levels)


def _measure_column(task: str, name: str) -> str:
    return f"/measures/{task}/{name}"


def _joined(parts: Sequence[_Share]) -> _Share:
    levels = list(parts[0].levels)
    for part in parts[1:]:
        levels = [mine.merge(theirs) for mine, theirs in zip(levels, part.levels, strict=True)]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    return _Share(columns=columns, levels=levels)
