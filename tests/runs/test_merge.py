"""Experts merged into those that stay: copies merge without loss, means are weighted by use, and what is refused."""

import sys
from collections.abc import Callable
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.errors import TrainingError
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.growth.merge import aligned
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates.softmax import SoftmaxGate
from recmoe.runs.prune import Pruned, prune_experts

MMOE = "{kind: mmoe, num_experts: 4, expert_hidden: [8, 6]}"
WITH_BIAS = "{kind: mmoe, num_experts: 4, expert_hidden: [8, 7, 6], gate: {kind: mlp}}"


def merged_to(keep: int, bundle: ModelBundle, folder: Path) -> Pruned:
    lineage = Lineage("prune-experts", "models:/shop/1", bundle.digest)
    return prune_experts(bundle, folder / "merged", keep=keep, lineage=lineage, cache_dir=folder / "cache", merge=True)


def network(*widths: int, seed: int) -> list[Tensor]:
    """A layer's weight with its bias as the last column, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(after, before + 1, generator=generator) for before, after in pairwise(widths)]


def outputs(weights: list[Tensor], x_BD: Tensor) -> Tensor:
    for weight_OI in weights:
        x_BD = torch.relu(x_BD @ weight_OI[:, :-1].T + weight_OI[:, -1])
    return x_BD


def in_order(weights: list[Tensor], *orders: Tensor) -> list[Tensor]:
    """The same network with the units of its hidden layers in other orders."""
    found = [weight_OI.clone() for weight_OI in weights]
    for layer, order_O in enumerate(orders):
        found[layer] = found[layer][order_O]
        found[layer + 1][:, :-1] = found[layer + 1][:, :-1][:, order_O]
    return found


def test_units_are_put_into_the_best_of_all_orders() -> None:
    like, other = network(3, 4, 2, seed=0), network(3, 4, 2, seed=1)
    x_BD = torch.randn(5, 3)

    found = aligned(other, like)

    def distance(weights: list[Tensor]) -> float:
        return sum(float((one - two).square().sum()) for one, two in zip(weights, like, strict=True))

    best = min(distance(in_order(other, torch.tensor(order))) for order in permutations(range(4)))
    assert distance(found) == pytest.approx(best)
    assert torch.allclose(outputs(found, x_BD), outputs(other, x_BD), atol=1e-6)


def test_copy_in_another_order_is_put_back_layer_by_layer() -> None:
    like = network(5, 7, 6, 3, seed=2)

    found = aligned(in_order(like, torch.arange(7).flip(0), torch.tensor([3, 0, 5, 1, 4, 2])), like)

    assert all(torch.equal(one, two) for one, two in zip(found, like, strict=True))


@torch.no_grad()
def plant_copies(bundle: ModelBundle) -> None:
    """Make experts 2 and 3 what 0 and 1 are, in another order of units, and half as used in every row."""
    layer = next(module for module in bundle.model.modules() if isinstance(module, ExpertLayer))
    experts = layer.experts
    assert isinstance(experts, MlpExperts)
    for of, copy in ((0, 2), (1, 3)):
        weights = [
            torch.cat([weight_EOD[of], bias_EO[of].unsqueeze(1)], dim=1)
            for weight_EOD, bias_EO in zip(experts.weights_EOD, experts.biases_EO, strict=True)
        ]
        mixed = in_order(weights, torch.randperm(8), torch.randperm(7))
        for weight_EOD, bias_EO, weight_OI in zip(experts.weights_EOD, experts.biases_EO, mixed, strict=True):
            weight_EOD[copy], bias_EO[copy] = weight_OI[:, :-1], weight_OI[:, -1]
    for gate in layer.gates:
        state = gate.state_dict()
        for name in state:
            if len(state[name]) == layer.experts.num_experts:
                state[name][2:] = state[name][:2]
        last = max(name for name in state if name.endswith(".bias"))
        state[last][2:] = state[last][:2] - np.log(2)
        gate.load_state_dict(state)


def test_copies_merge_into_their_originals_and_nothing_is_predicted_otherwise(
    trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    bundle = trained(WITH_BIAS)
    plant_copies(bundle)
    expected_NT = bundle.predict(shop_log)

    made = merged_to(2, bundle, tmp_path)

    assert list(made.joined.values()) == [{"shared.2": "shared.0", "shared.3": "shared.1"}]
    assert np.abs(made.bundle.predict(shop_log) - expected_NT).max() < 1e-6
    ModelBundle.load(tmp_path / "merged").check_replay()


@pytest.mark.parametrize(
    "architecture",
    [MMOE, "{kind: ple, num_task_experts: 2, num_shared_experts: 3, expert_hidden: [8, 6]}"],
)
def test_experts_and_rows_of_gates_become_means_by_use(
    architecture: str, trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    bundle = trained(architecture)

    made = merged_to(1, bundle, tmp_path)

    with torch.inference_mode():
        uses = bundle.model(bundle.encoder.encode(shop_log.slice(0, 80), with_labels=False)).gate_uses
    for path, joined in made.joined.items():
        old, new = (one.model.model.get_submodule(path) for one in (bundle, made.bundle))
        assert isinstance(old, ExpertLayer)
        assert isinstance(new, ExpertLayer)
        assert isinstance(old.experts, MlpExperts)
        assert isinstance(new.experts, MlpExperts)
        used_GE = next(use for use in uses if use.level == old.level).weights_BGE.mean(dim=0)
        for place, stays in enumerate(made.cuts[path].experts.values()):
            group = [old.expert_names.index(name) for name in (stays, *(a for a, b in joined.items() if b == stays))]
            share = {expert: float(used_GE[:, expert].sum() / used_GE[:, group].sum()) for expert in group}
            # Outputs of an expert keep their order: the last bias is a mean without any permutation.
            bias_O = torch.stack([share[expert] * old.experts.biases_EO[-1][expert] for expert in group]).sum(dim=0)
            assert torch.allclose(new.experts.biases_EO[-1][place], bias_O, atol=1e-6)
            for number, (before, after) in enumerate(zip(old.gates, new.gates, strict=True)):
                assert isinstance(before, SoftmaxGate)
                assert isinstance(after, SoftmaxGate)
                seen = [expert for expert in group if expert in old.seen[number]]
                if not seen:
                    continue
                used = {expert: float(used_GE[number, expert] / used_GE[number, seen].sum()) for expert in seen}
                rows = [used[e] * before.weight_VD[old.seen[number].index(e)] for e in seen]
                found_D = after.weight_VD[new.seen[number].index(place)]
                assert torch.allclose(found_D, torch.stack(rows).sum(dim=0), atol=1e-6)


def test_merged_model_says_what_it_cost_and_what_went_where(
    trained: Callable[..., ModelBundle], tmp_path: Path
) -> None:
    bundle = trained(MMOE)

    made = merged_to(2, bundle, tmp_path)

    (cut,) = made.cuts.values()
    (joined,) = made.joined.values()
    assert set(joined) == set(cut.dropped)
    assert set(joined.values()) <= set(cut.experts.values())
    assert made.cost.after.flops_per_row < made.cost.before.flops_per_row
    assert made.bundle.config["model"]["architecture"]["num_experts"] == 2


def test_experts_that_are_no_mlp_are_refused(trained: Callable[..., ModelBundle], tmp_path: Path) -> None:
    bundle = trained("{kind: mmoe, num_experts: 4, expert_hidden: [8], expert: {kind: gated}}")

    with pytest.raises(TrainingError, match=r"experts of level 0 are no mlp, .*; prune without --merge"):
        merged_to(2, bundle, tmp_path)


def test_merging_without_scipy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)

    with pytest.raises(
        TrainingError, match=r"putting units into groups or orders needs scipy .*pip install 'recmoe\[balancing\]'"
    ):
        aligned(network(3, 4, 2, seed=0), network(3, 4, 2, seed=1))
