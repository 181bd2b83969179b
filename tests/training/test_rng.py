"""Random state as JSON."""

import json
import random

import numpy as np
import torch

from recmoe.training.rng import restore_rng, rng_state


def test_restored_generators_repeat_themselves() -> None:
    random.gauss(0.0, 1.0)
    text = json.dumps(rng_state())
    first = (torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.gauss(0.0, 1.0) for _ in range(3)])

    restore_rng(json.loads(text))

    again = (torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.gauss(0.0, 1.0) for _ in range(3)])
    assert again == first
