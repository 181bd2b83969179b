"""check_replay(): rows of a bundle's replay, each as a request, encode and score as they did in training."""

# N rows

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.features.batch import Batch
from recmoe.features.blocks import same
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.ranking.columns import RequestDecoder

Predict = Callable[[Batch, Batch, Tensor], NDArray[np.float32]]
"""predictions_CT from the rows of requests, those of candidates, and the request of each candidate."""


def check_replay(
    bundle: ModelBundle, decoder: RequestDecoder, predict: Predict, tolerance: float
) -> tuple[Batch, Batch]:
    """Score the rows of the replay.

    Args:
        tolerance: see ``Replay.check_predictions``.

    Returns:
        The rows of requests, and those of their candidates.

    Raises:
        BundleError: they are encoded otherwise, or a task is scored differently.
    """
    rows, encoder = bundle.replay.rows, bundle.encoder
    batches = []
    for part, sides in ((decoder.shared, SHARED_SIDES), (decoder.own, OWN_SIDES)):
        batches.append(part.encode(part.of_table(rows)).batch)
        if not same(batches[-1], encoder.encode(rows, sides=sides, with_labels=False)):
            raise BundleError("replay: rows are encoded otherwise in requests than in training")
    shared, own = batches
    bundle.replay.check_predictions(predict(shared, own, torch.arange(rows.num_rows)), tolerance=tolerance)
    return shared, own
