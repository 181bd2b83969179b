"""EagerEngine: predictions of candidates, operation by operation."""

# R requests, C candidates, T tasks

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.model import MultiTaskRanker
from recmoe.model.known_items import KnownCandidates
from recmoe.products import autocast
from recmoe.ranking.precision import Precision


class EagerEngine:
    """Computes each call as it comes; threads may call it at once. See ``Engine``.

    Args:
        model: on a device.
        device: the model's.
        precision: of matrix products.
    """

    def __init__(self, model: MultiTaskRanker, *, device: torch.device, precision: Precision) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.keeps_products = device.type == "cpu"

    def predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        """predictions_CT; see ``Engine``."""
        with self.computing():
            if self.device.type != "cpu":
                assert known is None, "a device that keeps products"
                shared, own = on_device(shared, self.device), on_device(own, self.device)
                request_C = request_C.to(self.device)
            predictions_CT = self.model.predict_sided(shared, own, request_C, known)
            result: NDArray[np.float32] = predictions_CT.cpu().numpy()
        return result

    def warm_up(self, shared: Batch, own: Batch) -> None:
        """There is nothing that the first request would have to wait for."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the model computes as it serves."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            yield


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device, whose ids the host has counted: the device is not waited for then."""
    return batch.counted(batch.count_ids()).to(device)
