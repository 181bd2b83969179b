"""A trunk in a warm start: its weights go on by tokens and features, and what cannot go on begins anew."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import step_folder

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]

FEW = "training.max_steps=6"
NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
TRUNK = "kind: rank_mixer, head_width: 2, num_blocks: 1, num_experts: 2"
HEADS = "kind: attention_heads, width: 6, head_width: 4, num_blocks: 1, num_heads: 3, out: 8"


@pytest.mark.parametrize("kind", [TRUNK, HEADS], ids=["rank_mixer", "attention_heads"])
def test_same_trunk_begins_with_the_same_predictions(
    kind: str, train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    trunk = f"model.trunk={{{kind}, tokens: 3}}"
    earlier = train(make_experiment(tmp_path, trunk, FEW), tmp_path / "earlier").folder

    start = find_warm_start(str(earlier.root))
    later = train(make_experiment(tmp_path, trunk, *NO_STEPS), tmp_path / "later", warm_start=start).folder

    before, after = (ModelBundle.load(run.bundle).predict(shop_log) for run in (earlier, later))
    assert np.array_equal(before, after)
    report = later.warm_start_report()
    assert report is not None
    assert (report["dense_partly"], report["dense_new"]) == ([], [])


def test_token_goes_on_by_its_features_and_all_networks_go_on(
    train: Train, make_experiment: ExperimentMaker, stored_tensor: Callable[[Path, str], Tensor], tmp_path: Path
) -> None:
    trunk = f"model.trunk={{{TRUNK}, tokens: [things]}}"
    groups = "model.groups={things: [item_id, price]}", "model.groups={things: [item_id, price, hour]}"
    earlier = train(make_experiment(tmp_path, trunk, groups[0], FEW), tmp_path / "earlier").folder
    config = make_experiment(tmp_path, trunk, groups[1], *NO_STEPS)

    later = train(config, tmp_path / "later", warm_start=find_warm_start(str(earlier.root))).folder

    checkpoints = step_folder(earlier.checkpoints, 6), step_folder(later.checkpoints, 1)
    model = "dense/ranker.model.trunk."
    old_DF, new_DF = (stored_tensor(one, f"{model}tokens.0.weight") for one in checkpoints)
    assert new_DF.shape[1] == old_DF.shape[1] + 1
    kept_F = [int((new_DF - column_D1).abs().amax(dim=0).argmin()) for column_D1 in torch.split(old_DF, 1, dim=1)]
    assert len(set(kept_F)) == old_DF.shape[1]
    assert torch.equal(new_DF[:, kept_F], old_DF)
    old_TEKD, new_TEKD = (stored_tensor(one, f"{model}networks.0.in_TEKD") for one in checkpoints)
    assert torch.equal(old_TEKD, new_TEKD)


def test_heads_and_tokens_go_on_where_others_are_added(
    train: Train, make_experiment: ExperimentMaker, stored_tensor: Callable[[Path, str], Tensor], tmp_path: Path
) -> None:
    groups = "model.groups={things: [item_id, price], people: [user_id]}"
    trunks = f"model.trunk={{{HEADS}, tokens: [things]}}", f"model.trunk={{{HEADS}, tokens: [people, things]}}"
    earlier = train(make_experiment(tmp_path, trunks[0], groups, FEW), tmp_path / "earlier").folder
    config = make_experiment(tmp_path, trunks[1].replace("num_heads: 3", "num_heads: 5"), groups, *NO_STEPS)

    later = train(config, tmp_path / "later", warm_start=find_warm_start(str(earlier.root))).folder

    def both(name: str) -> tuple[Tensor, Tensor]:
        checkpoints = step_folder(earlier.checkpoints, 6), step_folder(later.checkpoints, 1)
        old, new = (stored_tensor(one, f"dense/ranker.model.trunk.{name}") for one in checkpoints)
        return old, new

    for head in ("router_ED", "query_EAD", "out_EDA"):
        old, new = both(f"attentions.0.{head}")
        assert torch.equal(new[:3], old)
    # The token of things is the second now; what no group names is the last of both.
    old_TDO, new_TDO = both("out_TDO")
    assert torch.equal(new_TDO[1:], old_TDO)
