"""A run over sharded tables is the run over plain ones: linear part, hidden ids, starts and all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.train import RunResult

ROWWISE = "tables.optimizer={kind: rowwise_adagrad, lr: 0.05}"
ADAGRAD = "tables.optimizer={kind: adagrad, lr: 0.05}"
# Cut by columns, a shard holds vectors' ends or the linear part.
BY_COLUMNS = "tables.sharding={item_id: column_wise, tags: row_wise, user_id: data_parallel}"
BY_ROWS = "tables.sharding={item_id: row_wise, tags: table_wise}"
HISTORY = "inputs.features.history={kind: sequence, columns: {tag: {column: tags, table: tags}}}"


@pytest.mark.parametrize(
    ("optimizer", "placement"),
    [
        (ADAGRAD, (BY_COLUMNS,)),
        (ROWWISE, (BY_ROWS,)),
        (ROWWISE, ("tables.dedup_ids=true",)),
        (ADAGRAD, (BY_COLUMNS, HISTORY)),
        (ROWWISE, ("tables.dedup_ids=true", HISTORY)),
    ],
)
def test_sharded_run_equals_plain_run(
    optimizer: str,
    placement: tuple[str, ...],
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path: Path,
) -> None:
    pytest.importorskip("torchrec")
    common = (
        "training.max_steps=20",
        "model.unknown_share=0.1",
        "tasks.when={kind: regression, label: visit}",
        optimizer,
    )
    histories = tuple(override for override in placement if override == HISTORY)
    placements = {"plain": ("tables.backend=plain", *histories), "sharded": ("tables.backend=torchrec", *placement)}

    states = {}
    for name, chosen in placements.items():
        config = make_experiment(tmp_path, *common, *chosen)
        states[name] = ModelBundle.load(train(config, tmp_path / name).folder.bundle).model.state_dict()

    items = states["plain"]["input_layer.tables.tables.item_id"]
    # Vectors of 4, and the weights of ctr, cvr and when.
    assert items.shape[1] == 8
    assert items[1:, 4:7].count_nonzero() > 60
    assert items[:, 7].count_nonzero() == 0
    assert states["sharded"].keys() == states["plain"].keys()
    for name, expected in states["plain"].items():
        torch.testing.assert_close(states["sharded"][name], expected, rtol=1e-4, atol=1e-5, msg=name)
