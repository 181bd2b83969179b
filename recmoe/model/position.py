"""PositionBias: what the place of a row on the page adds to its logits in training, and never in serving.

Zhao et al., RecSys 2019, https://doi.org/10.1145/3298689.3346997, section 4.3.
"""

# B rows, C columns (position, device), P positions, V device levels, W width of the first layer, Z logits

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.axes import WeightAxes
from recmoe.config import Config
from recmoe.features.labels import LabelColumn, Levels
from recmoe.tasks.funnel import TaskSet


class DeviceConfig(Config):
    """A column that says where the position was, for a place counts for more on a small screen."""

    column: str
    """Column of the log; null rows have the position alone."""
    levels: Levels
    """Its values: ``{phone: 0, web: 1}``; a log with others is refused."""


class PositionConfig(Config):
    """A shallow tower on the place where the log showed a row, whose output is added to the logits in training."""

    column: str
    """Column of the log that holds the position, a whole number from 0; null where a row was not shown in a list."""
    num_positions: PositiveInt = 50
    """Positions that are told apart; all later ones count as the last of them."""
    device: DeviceConfig | None = None
    """What else the tower reads."""
    hidden: tuple[PositiveInt, ...] = (16,)
    """Widths of its hidden layers; an empty list adds one number per position, and one per device."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the rows whose position a training step leaves out; by these the model learns to do without it."""
    tasks: tuple[str, ...] | None = None
    """Tasks whose logits it adds to; all that have a tower by default."""

    @property
    def label_columns(self) -> tuple[LabelColumn, ...]:
        """What it reads of the log, as the encoder reads labels: a request has neither."""
        position = LabelColumn(self.column, is_binary=False, use="position")
        if self.device is None:
            return (position,)
        return (position, LabelColumn(self.device.column, is_binary=False, levels=self.device.levels, use="device"))

    def task_problems(self, tasks: TaskSet) -> Iterator[tuple[str, str]]:
        """Tasks without a tower, as (key below the section, message)."""
        for name in self.tasks or ():
            if name not in tasks.tower_names:
                yield "tasks", f"no such task with a tower: {name}; there are: {', '.join(tasks.tower_names)}"

    def build(self, tasks: TaskSet) -> "PositionBias":
        """The tower, with weights drawn from torch's global generator."""
        names = tasks.tower_names if self.tasks is None else self.tasks
        return PositionBias(
            num_positions=self.num_positions,
            devices=() if self.device is None else self.device.levels.numbers,
            hidden=self.hidden,
            dropout=self.dropout,
            logits=tasks.logit_names,
            biased=[logit for name in names for logit in tasks.logits[name]],
        )


class PositionBias(nn.Module):
    """b[z] = tower(position, device)[z], and 0 where the position is missing or left out::

        tower(p, d) = W_n · relu(… relu(U[p] + V[d] + c) …) + c_n       V[d] = 0 where the device is missing

    The paper gives the tower a missing position in serving. Here a missing position adds nothing, so that serving
    needs nothing of the tower: the model by itself is what is validated, exported and served.

    Args:
        num_positions: P; later positions count as the last.
        devices: the numbers by which the levels of the device are labelled; none without a device.
        hidden: widths of the hidden layers.
        dropout: share of positions that are left out in training.
        logits: names of all Z logits.
        biased: those that it adds to.
    """

    devices_V: Tensor
    is_biased_Z: Tensor

    def __init__(
        self,
        *,
        num_positions: int,
        devices: Sequence[float],
        hidden: Sequence[int],
        dropout: float,
        logits: Sequence[str],
        biased: Sequence[str],
    ) -> None:
        super().__init__()
        self.logits = tuple(logits)
        self.devices = tuple(devices)
        self.dropout = dropout
        first, *_ = widths = (*hidden, len(logits))
        self.position_PW = nn.Parameter(torch.randn(num_positions, first) * first**-0.5)
        self.device_VW = nn.Parameter(torch.randn(len(devices), first) * first**-0.5) if devices else None
        self.bias_W = nn.Parameter(torch.zeros(first))
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.extend([nn.ReLU(), nn.Linear(before, after)])
        self.register_buffer("devices_V", torch.tensor(devices, dtype=torch.float32), persistent=False)
        self.register_buffer("is_biased_Z", torch.tensor([name in biased for name in logits]), persistent=False)
        self._begin_at_zero()

    @torch.no_grad()
    def _begin_at_zero(self) -> None:
        """A model begins at the base rates of its tasks, wherever a row was shown."""
        last = [self.position_PW, self.device_VW] if not len(self.layers) else self.layers[-1].parameters()
        for weight in last:
            if weight is not None:
                weight.zero_()

    def weight_axes(self) -> WeightAxes:
        """Positions and devices by their numbers; the last layer's outputs are the logits."""
        num_layers = len(self.layers)
        first = None if num_layers else self.logits
        last = f"layers.{num_layers - 1}"
        return {
            "position_PW": (tuple(range(len(self.position_PW))), first),
            "device_VW": (self.devices, first),
            "bias_W": (first,),
            f"{last}.weight": (self.logits, None),
            f"{last}.bias": (self.logits,),
        }

    def forward(self, columns_BC: Tensor) -> Tensor:
        """bias_BZ in float32.

        Args:
            columns_BC: position and, where there are devices, the number of the device's level; NaN where missing.
        """
        position_B = columns_BC[:, 0]
        is_known_B = ~position_B.isnan()
        place_B = position_B.nan_to_num().clamp(max=len(self.position_PW) - 1).long()
        # What reaches a logit is computed in float32, as the logits are.
        with torch.autocast(columns_BC.device.type, enabled=False):
            h_BW = self.position_PW.index_select(0, place_B) + self.bias_W
            if self.device_VW is not None:
                is_device_BV = columns_BC[:, 1, None] == self.devices_V
                h_BW = h_BW + is_device_BV.to(h_BW.dtype) @ self.device_VW
            bias_BZ = self.layers(h_BW)
        if self.training and self.dropout > 0:
            is_known_B = is_known_B & (torch.rand_like(position_B) >= self.dropout)
        return torch.where(is_known_B[:, None] & self.is_biased_Z, bias_BZ, 0.0)
