"""Models for tests of ranking: small configs that differ in their features alone, and weights that are drawn."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter

from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet


def small_config(features: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A shared bottom over some features, whose items are named by ``item_id``.

    Args:
        labels: of each task, which are binary, its column.
    """
    return {
        "inputs": {"width": 4, "item": "item_id", "features": dict(features)},
        "tasks": {task: {"kind": "binary", "label": label} for task, label in labels.items()},
        "model": {"architecture": {"kind": "shared_bottom", "hidden": [8]}},
    }


def model_of(config: Mapping[str, Any], encoder: FeatureEncoder, tasks: Mapping[str, Any]) -> MultiTaskRanker:
    """A model of a config's section, with the same weights every time."""
    torch.manual_seed(3)
    return build_model(
        layout=encoder.layout,
        tasks=TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks)),
        config=ModelConfig.model_validate(config),
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
