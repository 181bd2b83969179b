"""A task that is put in front of the others: their weights stay theirs, whatever the architecture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.tasks.binary import BinaryTaskConfig

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
ARCHITECTURES = [
    "{kind: single_task, hidden: [8]}",
    "{kind: shared_bottom, hidden: [8]}",
    "{kind: omoe, num_experts: 3, expert_hidden: [8]}",
    "{kind: mmoe, num_experts: 3, expert_hidden: [8]}",
    "{kind: mmoe, num_experts: 3, expert_hidden: [8], gate: {kind: mlp}}",
    "{kind: mmoe, num_experts: 3, expert_hidden: [8], gate: {kind: noisy_top_k}}",
    "{kind: mmoe, num_experts: 3, expert_hidden: [8], expert: [{kind: gated}, {kind: cross}]}",
    "{kind: cgc, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}",
    # One level: the shared gate of a lower one mixes the experts of all tasks, the new one's too.
    "{kind: ple, num_levels: 1, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}",
    "{kind: hierarchical, num_groups: 2, expert_hidden: [8]}",
    "{kind: deepseek_moe, num_routed_experts: 5, expert_hidden: [8], gate: {kind: top_k, k: 2}}",
    "{kind: home, expert_hidden: [8], feature_rank: 4}",
    "{kind: escm2, click: ctr, conversion: cvr, hidden: [8]}",
    "{kind: pepnet, hidden: [8], gate_hidden: 4}",
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_old_tasks_predict_what_they_did_and_the_new_one_is_reported_as_new(
    architecture: str, train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    small = f"model.architecture={architecture}"
    earlier = train(make_experiment(tmp_path, small, "training.max_steps=5"), tmp_path / "earlier").folder.root
    grown = shop_log.append_column("late", pa.array(np.arange(shop_log.num_rows) % 2))
    (tmp_path / "grown").mkdir()
    for name in ("train", "validation", "test"):
        pq.write_table(grown, tmp_path / "grown" / f"{name}.parquet")
    config = make_experiment(tmp_path / "grown", small, *NO_STEPS)
    tasks = {"late": BinaryTaskConfig(label="late"), **config.tasks}
    config = config.model_copy(update={"tasks": tasks})

    result = train(config, tmp_path / "run", warm_start=find_warm_start(str(earlier)))

    before, now = (ModelBundle.load(run / "bundle").predict(grown) for run in (earlier, tmp_path / "run"))
    assert now.shape[1] == before.shape[1] + 1
    assert np.abs(now[:, 1:] - before).max() < 1e-6
    report = result.folder.warm_start_report()
    assert report is not None
    assert any("towers[late]" in name for name in report["dense_new"])
    assert not any("[late]" in name for name in (*report["dense_kept"], *report["dense_partly"]))
