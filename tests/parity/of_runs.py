"""What two runs are compared by: their curves without what hangs on the clock, and the weights of their bundles."""

import json
from typing import Any

import torch

from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult

SPEEDS = ("train/samples_per_s", "train/data_wait_share")


def curves(folder: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    return dict(ModelBundle.load(result.folder.bundle).model.state_dict())
