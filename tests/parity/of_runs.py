"""What two runs are compared by: their curves without what hangs on the clock, and the weights of their bundles."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from recmoe.evaluation.report import Report
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult

SPEEDS = ("train/samples_per_s", "train/data_wait_share")


def curves(folder: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    # To twelve digits: numpy's logarithms round the last by where their values lie in memory.
    return [
        {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in line.items()}
        for line in ({name: value for name, value in line.items() if name not in SPEEDS} for line in lines)
    ]


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    return dict(ModelBundle.load(result.folder.bundle).model.state_dict())


def assert_same_report(one: Report | None, other: Report | None) -> None:
    """Fails where two reports differ.

    Of the numbers on experts the last digits may, as in ``curves``.
    """
    assert one is not None
    assert other is not None
    assert dataclasses.replace(one, experts={}) == dataclasses.replace(other, experts={})
    assert one.experts == pytest.approx(dict(other.experts), rel=1e-12, abs=1e-12, nan_ok=True)
