"""A mixture without its least used experts: which go, what is predicted without them, and what is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.architectures import MMoEConfig
from recmoe.architectures.seam import ArchitectureKind
from recmoe.errors import TrainingError
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.runs.prune import Pruned, prune_experts

MMOE = "{kind: mmoe, num_experts: 4, expert_hidden: [8]}"


def pruned_to(keep: int, bundle: ModelBundle, folder: Path) -> Pruned:
    lineage = Lineage("prune-experts", "models:/shop/1", bundle.digest)
    return prune_experts(bundle, folder / "pruned", keep=keep, lineage=lineage, cache_dir=folder / "cache")


@dataclass(frozen=True)
class Only:
    """A choice that gives nothing to other experts, and the rest in the proportions of before."""

    layer: ExpertLayer
    names: set[str]
    num_used = 99

    def num_pairs(self, num_gates: int) -> int:
        return num_gates * self.num_used

    def __call__(self, weights: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for p_BV, seen in zip(weights, self.layer.seen, strict=True):
            stays_V = torch.tensor([self.layer.expert_names[expert] in self.names for expert in seen])
            kept_BV = p_BV * stays_V
            found.append(kept_BV / kept_BV.sum(dim=1, keepdim=True))
        return found


@pytest.mark.parametrize(
    "architecture",
    [
        MMOE,
        "{kind: mmoe, num_experts: 4, expert_hidden: [8], expert: {kind: gated}}",
        "{kind: mmoe, num_experts: 4, expert_hidden: [8], gate: {kind: mlp}}",
        "{kind: omoe, num_experts: 4, expert_hidden: [8]}",
        "{kind: cgc, num_task_experts: {ctr: 3, cvr: 2}, num_shared_experts: 3, expert_hidden: [8]}",
        "{kind: ple, num_task_experts: 3, num_shared_experts: 3, expert_hidden: [8]}",
        "{kind: stem, num_task_experts: 3, num_shared_experts: 2, expert_hidden: [8]}",
        "{kind: ple, num_task_experts: 0, num_shared_experts: 3, expert_hidden: [8]}",
    ],
)
def test_gates_share_out_among_those_that_stay_as_they_did_before(
    architecture: str,
    trained: Callable[..., ModelBundle],
    shop_log: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = trained(architecture)

    pruned = pruned_to(2, bundle, tmp_path)

    for path, cut in pruned.cuts.items():
        layer = bundle.model.model.get_submodule(path)
        assert isinstance(layer, ExpertLayer)
        assert set(cut.experts.values()).isdisjoint(cut.dropped)
        assert set(cut.experts.values()) | set(cut.dropped) == set(layer.expert_names)
        monkeypatch.setattr(layer, "choice", Only(layer, set(cut.experts.values())))
    expected_NT = bundle.predict(shop_log)
    assert torch.allclose(
        torch.from_numpy(pruned.bundle.predict(shop_log)), torch.from_numpy(expected_NT), rtol=0, atol=1e-6
    )


def test_those_that_go_are_the_least_used_on_the_validation_split(
    trained: Callable[..., ModelBundle], shop_log: pa.Table, tmp_path: Path
) -> None:
    bundle = trained(MMOE)

    pruned = pruned_to(3, bundle, tmp_path)

    with torch.inference_mode():
        output = bundle.model(bundle.encoder.encode(shop_log.slice(0, 80), with_labels=False))
    use = output.gate_uses[0]
    share_E = use.weights_BGE.mean(dim=(0, 1))
    (cut,) = pruned.cuts.values()
    assert list(cut.dropped) == [use.experts[int(share_E.argmin())]]
    assert list(cut.dropped.values()) == [pytest.approx(float(share_E.min()), abs=1e-6)]
    assert pruned.split == "validation"


def test_pruned_model_is_a_bundle_with_its_own_report_and_what_it_cost(
    trained: Callable[..., ModelBundle], tmp_path: Path
) -> None:
    bundle = trained(MMOE)

    pruned = pruned_to(2, bundle, tmp_path)

    made = ModelBundle.load(tmp_path / "pruned")
    made.check_replay()
    assert made.config["model"]["architecture"]["num_experts"] == 2
    assert made.lineage == Lineage("prune-experts", "models:/shop/1", bundle.digest)
    assert made.report is not None
    cost = pruned.cost
    assert cost.metrics_after is not None
    assert made.report.value("ctr.auc[all]") == pytest.approx(cost.metrics_after["ctr.auc[all]"])
    assert cost.after.dense_parameters < cost.before.dense_parameters
    assert cost.after.flops_per_row < cost.before.flops_per_row
    assert [task.task for task in cost.tasks] == ["ctr", "cvr", "ctcvr"]


REFUSED = [
    ("{kind: shared_bottom, hidden: [8]}", 1, r"has no gates that choose among experts"),
    (MMOE, 4, r"no task of shop has more than 4 experts, nor do all share more; keep fewer"),
    (
        "{kind: mmoe, num_experts: 4, expert_hidden: [8], expert: [{kind: mlp}, {kind: gated}]}",
        2,
        r"are of several kinds",
    ),
    (
        "{kind: mmoe, expert_hidden: [8], gate: {kind: hash, feature: item_id}}",
        2,
        r"a gate of the model numbers its ex",
    ),
    (
        "{kind: mmoe, expert_hidden: [8], gate: {kind: dselect_k}}",
        2,
        r"a gate of the model numbers its experts, so that",
    ),
]


@pytest.mark.parametrize(("architecture", "keep", "message"), REFUSED)
def test_what_cannot_be_pruned_is_refused(
    architecture: str, keep: int, message: str, trained: Callable[..., ModelBundle], tmp_path: Path
) -> None:
    bundle = trained(architecture)

    with pytest.raises(TrainingError, match=message):
        pruned_to(keep, bundle, tmp_path)


def test_kind_that_cannot_say_how_it_looks_with_fewer_experts_is_refused(
    trained: Callable[..., ModelBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = trained(MMOE)
    monkeypatch.setattr(MMoEConfig, "keeping", ArchitectureKind.keeping)

    with pytest.raises(TrainingError, match=r"a model of kind mmoe does not say how it looks with fewer experts"):
        pruned_to(2, bundle, tmp_path)
