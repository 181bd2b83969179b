"""Weights that a weighting has found for losses go with their tasks, a new one in front of them or not."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import step_folder

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]
StoredTensor = Callable[[Path, str], Tensor]


@pytest.mark.parametrize(
    ("weighting", "state"),
    [("{kind: dwa, steps: 4}", "last_T"), ("{kind: famo, lr: 0.2}", "logits_T")],
    ids=["dwa", "famo"],
)
def test_weights_of_losses_go_with_their_tasks(
    weighting: str,
    state: str,
    train: Train,
    make_experiment: ExperimentMaker,
    shop_log: pa.Table,
    stored_tensor: StoredTensor,
    tmp_path: Path,
) -> None:
    config = make_experiment(tmp_path, f"model.weighting={weighting}")
    earlier = train(config, tmp_path / "earlier").folder
    grown_folder = tmp_path / "grown"
    grown_folder.mkdir()
    late = pa.array([row % 2 for row in range(shop_log.num_rows)])
    for split in ("train", "validation", "test"):
        pq.write_table(shop_log.append_column("late", late), grown_folder / f"{split}.parquet", row_group_size=60)
    tasks = {"late": {"kind": "binary", "label": "late"}, **config.model_dump(mode="json")["tasks"]}
    grown = make_experiment(grown_folder, f"model.weighting={weighting}", "training.max_steps=1")
    grown = ExperimentConfig.model_validate({**grown.model_dump(mode="json"), "tasks": tasks})

    later = train(grown, tmp_path / "later", warm_start=find_warm_start(str(earlier.root))).folder

    old_T = stored_tensor(step_folder(earlier.checkpoints, 25), f"dense/weighting.{state}")
    new_T = stored_tensor(step_folder(later.checkpoints, 1), f"dense/weighting.{state}")
    assert (len(old_T), len(new_T)) == (3, 4)
    # One step moves the logits by less than their learning rate; means of stretches not at all.
    assert (new_T[1:] - old_T).abs().max() < 0.25
    assert (old_T != 0).all()
