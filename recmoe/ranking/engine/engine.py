"""Engine: what computes the predictions of a ranker."""

# R requests, C candidates, T tasks

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.model import MultiTaskRanker
from recmoe.model.known_items import KnownCandidates


class Engine(Protocol):
    """Computes predictions on a device; threads may call it at once."""

    model: MultiTaskRanker
    """On the device, in the precision that is served."""
    device: torch.device
    keeps_products: bool
    """Whether it takes candidates whose products are known."""

    def predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        """predictions_CT.

        Args:
            shared: R rows of user and context, on the host.
            own: C rows of candidates, likewise; without those of known items.
            request_C: int64, the request of each candidate; those of one stand together, in the order of ``shared``.
            known: which candidates are items whose products are known, if it takes such.
        """
        ...

    def computing(self) -> AbstractContextManager[None]:
        """Inside, the model computes as it serves, where torch has no gradients to keep."""
        ...

    def warm_up(self, shared: Batch, own: Batch) -> None:
        """Do what the first requests would have to wait for.

        Args:
            shared, own: some rows, as requests will hold them.
        """
        ...
