"""The tower on positions in a warm start: positions, devices and logits go on by what they are."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import step_folder

TOWER = "column: visit, hidden: [4]"
FEW = "training.max_steps=6"
NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
NEW_TASK = "tasks.late={kind: binary, label: click}"


def test_tower_goes_on_with_more_positions_and_a_task_in_front(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    stored_tensor: Callable[[Path, str], Tensor],
    tmp_path: Path,
) -> None:
    config = make_experiment(tmp_path, f"model.position={{{TOWER}, num_positions: 10}}", FEW)
    earlier = train(config, tmp_path / "earlier").folder
    config = make_experiment(tmp_path, f"model.position={{{TOWER}, num_positions: 12}}", *NO_STEPS, NEW_TASK)
    config = config.model_copy(update={"tasks": {name: config.tasks[name] for name in ("late", "cvr", "ctr")}})

    later = train(config, tmp_path / "later", warm_start=find_warm_start(str(earlier.root))).folder

    checkpoints = step_folder(earlier.checkpoints, 6), step_folder(later.checkpoints, 1)
    old_PW, new_PW = (stored_tensor(checkpoint, "dense/position.position_PW") for checkpoint in checkpoints)
    assert torch.equal(new_PW[:10], old_PW)
    assert len(new_PW) == 12
    old_ZW, new_ZW = (stored_tensor(checkpoint, "dense/position.layers.1.weight") for checkpoint in checkpoints)
    assert old_ZW.any()
    # ctr and cvr before; now late, cvr and ctr.
    assert torch.equal(new_ZW[[2, 1]], old_ZW)
    assert new_ZW[0].abs().max() < 1e-25
