"""MMoE and PLE out of FuxiCTR's own parts: its package on PyPI brings the base class of multi-task models, not these.

``MultiTaskModel`` trains, ``FeatureEmbedding`` looks up, ``MLP_Block`` multiplies. As everywhere in FuxiCTR, a number
becomes a learnt vector as wide as an id's, so the input is 624 wide instead of 429.
"""

# B rows, D input width, E experts, H expert width

from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import MultiTaskModel
from torch import Tensor, nn

from benchmarks.peers.job import Job


class _MultiTask(MultiTaskModel):
    """Everything but what lies between the input and the towers."""

    def __init__(self, feature_map: FeatureMap, job: Job) -> None:
        super().__init__(
            feature_map,
            model_id=job.model,
            task=["binary_classification"] * len(job.labels),
            num_tasks=len(job.labels),
            gpu=0 if job.device == "cuda" else -1,
            monitor="AUC",
            metrics=["AUC"],
            verbose=0,
            model_root=job.cache,
        )
        self.sizes = job.sizes
        self.input_width = job.sizes.width * feature_map.num_fields
        self.embedding_layer = FeatureEmbedding(feature_map, job.sizes.width)
        self.towers = nn.ModuleList(
            MLP_Block(job.sizes.expert_hidden[-1], hidden_units=list(job.sizes.tower_hidden), output_dim=1)
            for _ in job.labels
        )

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x_BD = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        outputs = zip(self.feature_map.labels, self.mixed(x_BD), self.towers, self.output_activation, strict=True)
        return {f"{name}_pred": activation(tower(h_BH)) for name, h_BH, tower, activation in outputs}

    def mixed(self, x_BD: Tensor) -> list[Tensor]:
        """One h_BH per task."""
        raise NotImplementedError

    def _expert(self, in_features: int) -> nn.Module:
        expert: nn.Module = MLP_Block(in_features, hidden_units=list(self.sizes.expert_hidden))
        return expert

    def _ready(self, job: Job) -> None:
        self.compile("adam", "binary_crossentropy", job.sizes.lr)
        self.reset_parameters()
        self.model_to_device()


class MMoE(_MultiTask):
    """Experts that all tasks share, one linear gate per task."""

    def __init__(self, feature_map: FeatureMap, job: Job) -> None:
        super().__init__(feature_map, job)
        self.experts = nn.ModuleList(self._expert(self.input_width) for _ in range(job.sizes.num_experts))
        self.gates = nn.ModuleList(MLP_Block(self.input_width, output_dim=job.sizes.num_experts) for _ in job.labels)
        self._ready(job)

    def mixed(self, x_BD: Tensor) -> list[Tensor]:
        y_BEH = torch.stack([expert(x_BD) for expert in self.experts], dim=1)
        return [_mix(gate(x_BD), y_BEH) for gate in self.gates]


class PLE(_MultiTask):
    """Levels of shared experts and experts of each task; the shared gate carries all of them to the next level."""

    def __init__(self, feature_map: FeatureMap, job: Job) -> None:
        super().__init__(feature_map, job)
        sizes = job.sizes
        widths = [self.input_width] + [sizes.expert_hidden[-1]] * (sizes.num_levels - 1)
        self.levels = nn.ModuleList(
            self._level(width, len(job.labels), is_last=number == sizes.num_levels - 1)
            for number, width in enumerate(widths)
        )
        self._ready(job)

    def mixed(self, x_BD: Tensor) -> list[Tensor]:
        num_tasks = len(self.feature_map.labels)
        streams = [x_BD] * (num_tasks + 1)
        for level in self.levels:
            assert isinstance(level, nn.ModuleDict)
            groups: Any = level["experts"]
            gates: Any = level["gates"]
            outputs = [[expert(stream) for expert in group] for group, stream in zip(groups, streams, strict=True)]
            seen = [torch.stack(outputs[task] + outputs[-1], dim=1) for task in range(num_tasks)]
            seen.append(torch.stack([y_BH for group in outputs for y_BH in group], dim=1))
            streams = [_mix(gate(stream), y_BEH) for gate, stream, y_BEH in zip(gates, streams, seen, strict=False)]
        return streams

    def _level(self, width: int, num_tasks: int, *, is_last: bool) -> nn.ModuleDict:
        sizes = self.sizes
        counts = [sizes.num_task_experts] * num_tasks + [sizes.num_shared_experts]
        experts = nn.ModuleList(nn.ModuleList(self._expert(width) for _ in range(count)) for count in counts)
        seen = [sizes.num_task_experts + sizes.num_shared_experts] * num_tasks
        if not is_last:
            seen.append(sum(counts))
        gates = nn.ModuleList(MLP_Block(width, output_dim=num) for num in seen)
        return nn.ModuleDict({"experts": experts, "gates": gates})


def _mix(logits_BE: Tensor, y_BEH: Tensor) -> Tensor:
    """Weighted sum of the experts."""
    return torch.sum(torch.softmax(logits_BE, dim=1).unsqueeze(-1) * y_BEH, dim=1)
