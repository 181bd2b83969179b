"""A bundle of the shop whose tables are nearly all of it, and others that differ from it in some rows."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from recmoe.embeddings.tables import PlainTables
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay
from recmoe.export.stored_model import ModelSections
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import build_model
from recmoe.tasks.funnel import TaskSet

MAX_FILE_BYTES = 2**20
"""A table of the bundle has several files."""


def large_bundle(path: Path, config: dict[str, Any], log: pa.Table, *, num_buckets: int = 60_000) -> Path:
    """Write a bundle whose items have tables of so many rows."""
    config = copy.deepcopy(config)
    config["inputs"]["features"]["item_id"]["encoding"] = {"kind": "hash", "num_buckets": num_buckets}
    sections = ModelSections.model_validate(config)
    tasks = TaskSet(sections.tasks)
    encoder = FeatureEncoder.fit(sections.inputs, [log], tasks.label_columns)
    torch.manual_seed(4)
    model = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=sections.model,
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
    rows = log.slice(0, 20)
    with torch.inference_mode():
        predictions_NT = model.predict(encoder.encode(rows, with_labels=False)).numpy()
    write_bundle(
        path,
        name="shop",
        config=config,
        encoder=encoder,
        model=model,
        replay=Replay.capture(rows, encoder=encoder, task_names=tasks.names, predictions_NT=predictions_NT),
        max_file_bytes=MAX_FILE_BYTES,
    )
    return path


def with_changed_rows(source: Path, path: Path, *, seed: int, share: float = 0.01) -> Path:
    """Write a bundle that differs from another one in a share of the rows of its large tables, and in all of others."""
    drawn = torch.Generator().manual_seed(seed)

    def change(rows_ND: Tensor) -> Tensor:
        num_rows = len(rows_ND)
        num_changed = num_rows if num_rows < 1000 else int(num_rows * share)
        numbers = torch.randperm(num_rows, generator=drawn)[:num_changed]
        changed_ND = rows_ND.detach().clone()
        changed_ND[numbers] += 0.5
        return changed_ND

    return _changed(source, path, change)


def with_new_rows(source: Path, path: Path) -> Path:
    """Write a bundle all of whose rows are others."""
    return _changed(source, path, lambda rows_ND: rows_ND.detach() + 1.0)


def _changed(source: Path, path: Path, change: Callable[[Tensor], Tensor]) -> Path:
    bundle = ModelBundle.load(source)
    for table in bundle.model.input_layer.tables.parameters():
        table.data = change(table)
    rows, encoder, names = bundle.replay.rows, bundle.encoder, bundle.replay.task_names
    replay = Replay.capture(rows, encoder=encoder, task_names=names, predictions_NT=bundle.predict(rows))
    write_bundle(
        path,
        name=bundle.name,
        config=bundle.config,
        encoder=encoder,
        model=bundle.model,
        replay=replay,
        max_file_bytes=MAX_FILE_BYTES,
    )
    return path
