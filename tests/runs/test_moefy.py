"""A dense network split into experts: exact with all of them, balanced groups, a router that finds the active ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.growth.earlier import WarmStart
from recmoe.growth.moefy import balanced_clusters, captured, fit_router
from recmoe.runs.moefy import Moefied, moefy
from recmoe.runs.train import RunResult

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]


LONGER = "training.epochs=3"


def split(bundle: ModelBundle, folder: Path, *, num_experts: int, k: int) -> Moefied:
    lineage = Lineage("moefy", "models:/shop/1", bundle.digest)
    return moefy(bundle, folder / "split", num_experts=num_experts, k=k, lineage=lineage, cache_dir=folder / "cache")


@pytest.mark.parametrize("hidden", ["[12, 8]", "[16, 12, 8]"])
def test_all_experts_together_are_the_dense_network(
    hidden: str, trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    bundle = trained(f"{{kind: shared_bottom, hidden: {hidden}}}", LONGER)

    made = split(bundle, tmp_path, num_experts=4, k=4)

    assert np.abs(made.bundle.predict(shop_log) - bundle.predict(shop_log)).max() < 1e-6
    assert made.captured == pytest.approx(1.0)


@pytest.mark.parametrize("num_experts", [1, 2])
def test_network_on_a_trunk_is_split_above_it(
    num_experts: int, trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    trunk = f"model.trunk={{kind: rank_mixer, tokens: 3, head_width: 2, num_blocks: 1, num_experts: {num_experts}}}"
    bundle = trained("{kind: shared_bottom, hidden: [12, 8]}", trunk)

    made = split(bundle, tmp_path, num_experts=4, k=4)

    assert np.abs(made.bundle.predict(shop_log) - bundle.predict(shop_log)).max() < 1e-6
    assert made.captured == pytest.approx(1.0)
    assert made.bundle.config["model"]["trunk"] == bundle.config["model"]["trunk"]


def test_row_uses_few_experts_and_costs_less(
    trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    bundle = trained("{kind: shared_bottom, hidden: [48, 8]}", LONGER)

    made = split(bundle, tmp_path, num_experts=6, k=2)

    (use,) = made.bundle.model(bundle.encoder.encode(shop_log, with_labels=False)).gate_uses
    assert set(use.weights_BGE.sum(2).unique().tolist()) == {2.0}
    assert made.cost.after.flops_per_row < 0.6 * made.cost.before.flops_per_row
    # A choice without sense would hold a third of the activations.
    assert 0.4 < made.captured < 1.0
    loaded = ModelBundle.load(tmp_path / "split")
    loaded.check_replay()
    assert loaded.lineage == Lineage("moefy", "models:/shop/1", bundle.digest)
    assert loaded.config["model"]["architecture"]["kind"] == "moefied"


def test_split_model_keeps_the_dropout_of_its_network(trained: Callable[..., ModelBundle], tmp_path: Path) -> None:
    bundle = trained("{kind: shared_bottom, hidden: [12, 8], dropout: 0.2}")

    made = split(bundle, tmp_path, num_experts=4, k=2)

    assert made.bundle.config["model"]["architecture"]["dropout"] == 0.2


def test_split_model_is_trained_further_from_where_it_is(
    trained: Callable[..., ModelBundle],
    train: Train,
    make_experiment: ExperimentMaker,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    bundle = trained("{kind: shared_bottom, hidden: [12, 8]}", LONGER)
    made = split(bundle, tmp_path, num_experts=4, k=2)
    config = make_experiment(
        tmp_path,
        "model.architecture={kind: moefied, hidden: [12, 8], num_experts: 4, k: 2}",
        # A single step that moves nothing.
        "training.max_steps=1",
        "training.dense_optimizer.lr=1e-30",
        "tables.optimizer.lr=1e-30",
    )

    source = str(tmp_path / "split")
    result = train(config, tmp_path / "run", warm_start=WarmStart(source, tmp_path / "split", None))

    found_NT = ModelBundle.load(result.folder.bundle).predict(shop_log)
    assert np.abs(found_NT - made.bundle.predict(shop_log)).max() < 1e-6


def test_units_that_are_alike_form_groups_of_one_size() -> None:
    torch.manual_seed(0)
    planted_N = torch.arange(4).repeat(6)[torch.randperm(24)]
    points_NZ = 10.0 * torch.eye(4)[planted_N] + 0.1 * torch.randn(24, 4)

    cluster_N = balanced_clusters(points_NZ, 4)

    assert torch.bincount(cluster_N).tolist() == [6, 6, 6, 6]
    assert len({(int(found), int(planted)) for found, planted in zip(cluster_N, planted_N, strict=True)}) == 4


def test_groups_have_one_size_where_points_lie_in_one_heap() -> None:
    torch.manual_seed(1)
    points_NZ = torch.cat([torch.randn(14, 3), torch.tensor([[50.0, 0, 0], [0, 50.0, 0]])])

    cluster_N = balanced_clusters(points_NZ, 4)

    assert torch.bincount(cluster_N).tolist() == [4, 4, 4, 4]


def test_router_is_ridge_regression_on_the_sums_of_activations() -> None:
    torch.manual_seed(2)
    cluster_U = torch.tensor([0, 1, 1, 0])
    z_NZ, weight_UZ = torch.randn(300, 3), torch.randn(4, 3)
    a_NU = torch.relu(z_NZ @ weight_UZ.T)
    parts = [(z_NZ[:100], a_NU[:100]), (z_NZ[100:], a_NU[100:])]

    weight_VZ, bias_V = fit_router(parts, cluster_U)

    x_NI = np.concatenate([z_NZ.numpy(), np.ones((300, 1))], axis=1)
    for expert in range(2):
        sums_N = sum(a_NU[:, unit].numpy() for unit in range(4) if cluster_U[unit] == expert)
        expected_I = np.linalg.lstsq(x_NI, np.asarray(sums_N), rcond=None)[0]
        found_I = np.append(weight_VZ[expert].numpy(), bias_V[expert].item())
        assert np.abs(found_I - expected_I).max() < 1e-3


def test_share_captured_is_that_of_the_chosen() -> None:
    cluster_U = torch.tensor([0, 0, 1])
    a_NU = torch.tensor([[1.0, 2.0, 5.0], [4.0, 0.0, 0.0]])
    first_always = (torch.zeros(2, 1), torch.tensor([1.0, 0.0]))

    share = captured([(torch.zeros(2, 1), a_NU)], cluster_U, first_always, k=1)

    assert share == pytest.approx(7 / 12)


REFUSED = [
    ("{kind: mmoe, num_experts: 2, expert_hidden: [12, 8]}", 4, 2, r"is not of kind shared_bottom with two layers"),
    ("{kind: shared_bottom, hidden: [8]}", 4, 2, r"is not of kind shared_bottom with two layers"),
    ("{kind: shared_bottom, hidden: [12, 8]}", 5, 2, r"12 units cannot be split into 5 experts of one size"),
    ("{kind: shared_bottom, hidden: [12, 8]}", 4, 5, r"of which a row uses 5; .* no more to use"),
]


@pytest.mark.parametrize(("architecture", "num_experts", "k", "message"), REFUSED)
def test_what_cannot_be_split_is_refused(
    architecture: str,
    num_experts: int,
    k: int,
    message: str,
    trained: Callable[..., ModelBundle],
    tmp_path: Path,
) -> None:
    bundle = trained(architecture, LONGER)

    with pytest.raises(TrainingError, match=message):
        split(bundle, tmp_path, num_experts=num_experts, k=k)
