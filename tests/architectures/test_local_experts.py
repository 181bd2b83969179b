"""Local experts: the paper's loss and gradient as a loop; what is served; and experts that take a regime each."""

import math
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.local_experts import LocalExperts, LocalExpertsConfig
from recmoe.architectures.seam import Inputs, Parts
from recmoe.balancing.fork import Fork
from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig
from recmoe.model.build import build_training_model
from recmoe.model.objective import TrainingModel
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.mixing import Experts
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.tower import TowerConfig

LOG = pa.table(
    {
        "item": ["a", "b", "a", "b", "c", "d"],
        "click": [1, 0, 1, 1, 1, 0],
        "buy": [1, 0, None, 0, 1, 0],
        "hours": [3.0, 50.0, 7.0, 20.0, None, 90.0],
        "kind": [0, 1, 2, 1, 0, 2],
        "place": [0, 1, 2, 3, 4, 1],
    }
)
TASKS: dict[str, Any] = {
    "ctr": {"kind": "binary", "label": "click", "weight": 2.0},
    "cvr": {"kind": "binary", "label": "buy", "space": "click"},
    "ctcvr": {"kind": "product", "of": ["ctr", "cvr"]},
    "hours": {"kind": "regression", "label": "hours"},
    "kind": {"kind": "classes", "label": "kind", "classes": [0, 1, 2]},
}
SPREAD = 0.5


def tasks_of(tasks: dict[str, Any]) -> TaskSet:
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks))


def training_model(
    tasks: dict[str, Any] = TASKS, *, architecture: dict[str, Any] | None = None, **model: Any
) -> tuple[FeatureEncoder, TrainingModel]:
    """With starts, a linear part, and weights under which no expert predicts what another does."""
    schema = FeatureSchema.model_validate({"width": 4, "features": {"item": {"kind": "id"}}})
    own = architecture or {"kind": "local_experts", "num_experts": 3, "expert_hidden": [5], "spread": SPREAD}
    config = ModelConfig.model_validate({"architecture": own, **model})
    made = tasks_of(tasks)
    encoder = FeatureEncoder.fit(schema, [LOG], config.label_columns(made))
    result = build_training_model(
        layout=encoder.layout,
        tasks=made,
        config=config,
        tables=lambda rows: PlainTables(rows, init_std=1.0),
        starts=made.starts(made.label_sums(encoder.encode(LOG).labels_BL[:, : len(made.label_columns)])),
    )
    for parameter in result.parameters():
        parameter.data.normal_(std=0.5)
    return encoder, result


@torch.no_grad()
def test_losses_equal_a_loop_written_from_the_paper() -> None:
    encoder, model = training_model()
    batch = encoder.encode(LOG)

    loss, named = model(batch)

    output = model.ranker(batch)
    labels, unit = LOG.to_pydict(), float(model.ranker.unit_T[2])
    expected = dict.fromkeys(TASKS, 0.0)
    for row in range(6):
        likelihood = dict.fromkeys(output.mixture, 0.0)
        mean = dict.fromkeys(output.mixture, 0.0)
        for expert in range(3):
            for name, experts in output.mixture.items():
                share, z_K = experts.shares_EB[expert, row].item(), experts.logits_EBK[expert, row]
                if name == "hours":
                    # E = −log Σ p · exp(−½ (d − o)²), in units of the label's deviation and the spread.
                    away = ((labels["hours"][row] or 0.0) - z_K[0].item()) / (unit * SPREAD)
                    likelihood[name] += share * math.exp(-(away**2) / 2)
                elif name == "kind":
                    likelihood[name] += share * torch.softmax(z_K, 0)[labels["kind"][row]].item()
                else:
                    p = torch.sigmoid(z_K[0]).item()
                    likelihood[name] += share * (p if labels[{"ctr": "click", "cvr": "buy"}[name]][row] else 1 - p)
                    mean[name] += share * p
        clicked, bought = labels["click"][row], labels["buy"][row]
        expected["ctr"] -= math.log(likelihood["ctr"])
        expected["kind"] -= math.log(likelihood["kind"])
        if clicked and bought is not None:
            expected["cvr"] -= math.log(likelihood["cvr"])
        if not clicked or bought is not None:
            both = mean["ctr"] * mean["cvr"]
            expected["ctcvr"] -= math.log(both if clicked and bought else 1 - both)
        if labels["hours"][row] is not None:
            expected["hours"] -= 2 * (unit * SPREAD) ** 2 * math.log(likelihood["hours"])
    for name, found in zip(TASKS, named.tolist(), strict=True):
        assert found == pytest.approx(expected[name] / 6, rel=1e-4), name
    weighted = (
        2 * expected["ctr"] + expected["cvr"] + expected["ctcvr"] + expected["hours"] / unit**2 + expected["kind"]
    )
    assert loss.item() == pytest.approx(weighted / 6, rel=1e-4)


def test_gradient_of_an_expert_is_weighted_by_its_share_in_the_likelihood() -> None:
    torch.manual_seed(0)
    o_EB = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    p_EB = torch.softmax(torch.randn(4, 5, dtype=torch.float64), dim=0).requires_grad_()
    d_B = torch.randn(5, dtype=torch.float64)

    # Twice E of equation 1.3: the squared error of a task has no ½.
    (Experts(o_EB.unsqueeze(2), p_EB, 1.0).losses((d_B - o_EB).square(), 2.0).sum() / 2).backward()

    density_EB = p_EB * torch.exp(-0.5 * (d_B - o_EB) ** 2)
    posterior_EB = (density_EB / density_EB.sum(dim=0)).detach()
    torch.testing.assert_close(o_EB.grad, (-posterior_EB * (d_B - o_EB)).detach())
    torch.testing.assert_close(p_EB.grad, -posterior_EB / p_EB.detach())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_experts_that_are_sure_and_wrong_still_have_a_gradient(sign: float) -> None:
    tasks = tasks_of({"ctr": TASKS["ctr"]})
    logits_EBK = torch.tensor([[[200.0 * sign]], [[300.0 * sign]]], requires_grad=True)
    mixture = {"ctr": Experts(logits_EBK, torch.tensor([[0.5], [0.5]]), 1.0)}
    label_B1 = torch.tensor([[0.0 if sign > 0 else 1.0]])

    loss = tasks.row_losses(tasks.mixing("ctr").join(mixture["ctr"]), label_B1, torch.ones(1, 1), None, mixture).sum()
    loss.backward()

    assert loss.item() == pytest.approx(200.0 + math.log(2))
    torch.testing.assert_close(logits_EBK.grad[:, 0, 0], torch.tensor([sign, 0.0]))


def test_prediction_is_the_mean_of_what_the_experts_predict() -> None:
    encoder, model = training_model()
    batch = encoder.encode(LOG)

    found_BT = model.ranker.predict(batch)

    mixture = model.ranker(batch).mixture
    expected = {
        "ctr": torch.sigmoid(mixture["ctr"].logits_EBK[..., 0]),
        "cvr": torch.sigmoid(mixture["cvr"].logits_EBK[..., 0]),
        "hours": mixture["hours"].logits_EBK[..., 0],
        "kind": torch.softmax(mixture["kind"].logits_EBK, dim=2) @ torch.arange(3.0),
    }
    means = {name: (mixture[name].shares_EB * of_EB).sum(dim=0) for name, of_EB in expected.items()}
    means["ctcvr"] = means["ctr"] * means["cvr"]
    torch.testing.assert_close(found_BT, torch.stack([means[name] for name in TASKS], dim=1), rtol=1e-4, atol=1e-5)


def test_one_expert_is_a_shared_bottom() -> None:
    tasks = {**TASKS, "hours": {**TASKS["hours"], "transform": "log1p"}}
    one = {"kind": "local_experts", "num_experts": 1, "expert_hidden": [5]}
    encoder, model = training_model(tasks, architecture=one)
    _, bottom = training_model(tasks, architecture={"kind": "shared_bottom", "hidden": [5]})
    state = {
        name.replace("inner.architecture.layer.", "architecture.").replace("inner.", ""): value
        for name, value in model.state_dict().items()
        if ".gates." not in name
    }
    bottom.load_state_dict({name: state[name] for name in bottom.state_dict()})
    batch = encoder.encode(LOG)

    loss, named = model(batch)

    expected, of_bottom = bottom(batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(named, of_bottom)


def test_with_a_wide_spread_the_loss_is_the_error_that_the_gate_expects() -> None:
    o_EBK, p_EB = torch.tensor([[[1.0]], [[4.0]]]), torch.tensor([[0.25], [0.75]])

    wide_B = RegressionTaskConfig(label="y").build()._of_mixture(Experts(o_EBK, p_EB, 100.0), torch.tensor([2.0]))

    # Equation 1.2: Σ p · (d − o)².
    torch.testing.assert_close(wide_B, torch.tensor([0.25 * 1.0 + 0.75 * 4.0]), rtol=1e-2, atol=0)


def test_huber_of_near_experts_is_half_of_the_square() -> None:
    experts, target_B = Experts(torch.tensor([[[1.0]], [[1.5]]]), torch.tensor([[0.25], [0.75]]), 0.7), torch.ones(1)

    huber_B, square_B = (
        RegressionTaskConfig(label="y", loss=loss).build()._of_mixture(experts, target_B) for loss in ("huber", "mse")
    )

    torch.testing.assert_close(huber_B, square_B / 2)


@torch.no_grad()
def test_mean_of_an_amount_is_learned_for_the_joined_median() -> None:
    amount = {"kind": "regression", "label": "hours", "transform": "log1p"}
    encoder, model = training_model({"hours": amount})
    batch = encoder.encode(LOG)
    experts = model.ranker(batch).mixture["hours"]

    loss, _ = model(batch)

    unit = float(model.ranker.unit_T[0])
    assert experts.spread == pytest.approx(SPREAD * unit)
    joined_BK = (experts.shares_EB.unsqueeze(2) * experts.logits_EBK).sum(dim=0)
    expected = 0.0
    for row, hours in enumerate(LOG.to_pydict()["hours"]):
        if hours is not None:
            target, tau = math.log1p(hours), 2 * (SPREAD * unit) ** 2
            parts_E = experts.shares_EB[:, row] * torch.exp(-((experts.logits_EBK[:, row, 0] - target) ** 2) / tau)
            z, d = joined_BK[row].tolist()
            rest = (target - z) * (1 if z >= 0 else -1) - d
            expected += -tau * math.log(parts_E.sum()) + 0.2 * (math.exp(rest) - rest - 1)
    assert loss.item() == pytest.approx(expected / 6 / unit**2, rel=1e-4)


@torch.no_grad()
def test_place_of_a_row_is_added_to_what_every_expert_predicts() -> None:
    tasks = {name: TASKS[name] for name in ("ctr", "hours")}
    encoder, model = training_model(tasks, position={"column": "place", "dropout": 0.0})
    batch = encoder.encode(LOG)
    assert model.position is not None

    _, named = model(batch)

    ranker, labels = model.ranker, LOG.to_pydict()
    added_BZ = ranker.unit_T * model.position(batch.labels_BL[:, 2:])
    mixture, expected = ranker(batch).mixture, 0.0
    for row, hours in enumerate(labels["hours"]):
        if hours is not None:
            o_E = mixture["hours"].logits_EBK[:, row, 0] + added_BZ[row, 1]
            tau = 2 * float(ranker.unit_T[1] * SPREAD) ** 2
            expected -= tau * math.log(
                (mixture["hours"].shares_EB[:, row] * torch.exp(-((o_E - hours) ** 2) / tau)).sum()
            )
    p_B = (mixture["ctr"].shares_EB * torch.sigmoid(mixture["ctr"].logits_EBK[..., 0] + added_BZ[:, 0])).sum(dim=0)
    of_click = torch.nn.functional.binary_cross_entropy(p_B, torch.tensor(labels["click"]).float())
    assert named.tolist() == pytest.approx([of_click.item(), expected / 6], rel=1e-4)


def test_distance_to_a_teacher_is_that_of_the_joined_prediction() -> None:
    tasks = {name: TASKS[name] for name in ("ctr", "hours")}
    made = tasks_of(tasks)
    experts = {
        "ctr": Experts(torch.tensor([[[2.0]], [[-1.0]]]), torch.tensor([[0.5], [0.5]]), 1.0),
        "hours": Experts(torch.tensor([[[3.0]], [[5.0]]]), torch.tensor([[0.5], [0.5]]), 1.0),
    }
    joined_BZ = torch.cat([made.mixing(name).join(one) for name, one in experts.items()], dim=1)
    p = (torch.sigmoid(torch.tensor([2.0, -1.0])).sum() / 2).item()
    teacher_BZ = torch.tensor([[0.0, 1.0]])

    found_N = made.imitations(("ctr", "hours"), joined_BZ, teacher_BZ, torch.tensor([[1.0, 2.0]]))

    expected = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    assert found_N.tolist() == pytest.approx([expected, (4.0 - 1.0) ** 2], rel=1e-5)


def model_of(tasks: dict[str, Any], *, width: int = 4, towers: tuple[int, ...] = (3,), **changes: Any) -> LocalExperts:
    torch.manual_seed(0)
    model = assembled(LocalExpertsConfig(num_experts=3, expert_hidden=(width,), **changes), tasks_of(tasks), towers)
    assert isinstance(model, LocalExperts)
    return model


def assembled(config: ArchitectureConfig, tasks: TaskSet, towers: tuple[int, ...]) -> torch.nn.Module:
    def make_tower(width: int, name: str) -> torch.nn.Module:
        return TowerConfig(hidden=towers).build(in_features=width, logits=tasks.logits[name])

    return config.assemble(Parts(widths={"all": 3}, tasks=tasks, make_tower=make_tower))


TWO = {name: TASKS[name] for name in ("ctr", "kind")}


def test_sparse_gate_predicts_what_its_experts_would_if_all_were_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TWO, gate={"kind": "top_k", "k": 2}).eval()
    x_BD = torch.randn(7, 3)

    sparse = model(Inputs(x_BD))

    for gate in model.inner.architecture.layer.gates:
        monkeypatch.setattr(type(gate), "is_sparse", False)
    dense = model(Inputs(x_BD))
    torch.testing.assert_close(sparse.logits_BZ, dense.logits_BZ)
    for name, experts in sparse.mixture.items():
        is_chosen_EB = experts.shares_EB > 0
        assert is_chosen_EB.sum(dim=0).tolist() == [2] * 7
        torch.testing.assert_close(experts.logits_EBK[is_chosen_EB], dense.mixture[name].logits_EBK[is_chosen_EB])
        assert not experts.logits_EBK[~is_chosen_EB].any()


def test_gate_that_draws_hears_of_experts_that_were_not_drawn() -> None:
    model = model_of({"ctr": TASKS["ctr"]}, gate={"kind": "gumbel"}).train()

    outputs = model(Inputs(torch.randn(20, 3)))
    outputs.logits_BZ.square().sum().backward()

    assert model.inner.architecture.layer.gates[0].weight_VD.grad.any()


def test_tasks_read_copies_of_the_experts() -> None:
    model, x_BD = model_of(TWO), torch.randn(6, 3)
    weights = list(model.parameters())
    plain = torch.autograd.grad(model(Inputs(x_BD)).logits_BZ.square().sum(), weights)

    model.fork_shared(Fork(num_tasks=2))
    forked = torch.autograd.grad(model(Inputs(x_BD)).logits_BZ.square().sum(), weights)
    model.fork_shared(Fork(num_tasks=2, rule=lambda gram_PP: gram_PP.new_tensor([1.0, 0.0])))
    of_first = torch.autograd.grad(model(Inputs(x_BD)).logits_BZ.square().sum(), weights)

    torch.testing.assert_close(forked, plain)
    first = torch.autograd.grad(model(Inputs(x_BD)).logits_BZ[:, 0].square().sum(), weights, allow_unused=True)
    name = "inner.architecture.layer.experts.weights_EOD.0"
    place = [name for name, _ in model.named_parameters()].index(name)
    torch.testing.assert_close(of_first[place], first[place])


def specialised(config: ArchitectureConfig, seed: int) -> tuple[float, float]:
    """Entropy of the gate's shares, and how much of an expert's rows of one regime it has of the other, after training.

    The label is x1 where x0 is 1, and −x1 where it is −1.
    """
    torch.manual_seed(seed)
    tasks = tasks_of({"y": {"kind": "regression", "label": "y"}})
    model = assembled(config, tasks, ())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x_BD = torch.randn(512, 3)
    x_BD[:, 0] = x_BD[:, 0].sign()
    y_B1 = (x_BD[:, 0] * x_BD[:, 1] + 0.1 * torch.randn(512)).unsqueeze(1)
    for _ in range(300):
        outputs = model(Inputs(x_BD))
        loss = tasks.row_losses(outputs.logits_BZ, y_B1, torch.ones(512, 1), None, outputs.mixture).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    p_BE: Tensor = model(Inputs(x_BD)).routing[0].weights_BGE[:, 0].detach()
    entropy = -torch.special.xlogy(p_BE, p_BE).sum(dim=1).mean().item()
    overlap = torch.minimum(*(p_BE[x_BD[:, 0] == regime].mean(dim=0) for regime in (1.0, -1.0))).sum().item()
    return entropy, overlap


@pytest.mark.parametrize("seed", [0, 1])
def test_experts_take_a_regime_each_where_those_of_mmoe_add_up(seed: int) -> None:
    parse = TypeAdapter[ArchitectureConfig](ArchitectureConfig).validate_python
    sizes = {"num_experts": 2, "expert_hidden": [4]}

    entropy, overlap = specialised(parse({"kind": "local_experts", "spread": 0.3, **sizes}), seed)
    entropy_of_mmoe, overlap_of_mmoe = specialised(parse({"kind": "mmoe", **sizes}), seed)

    assert overlap < 0.05 < 0.15 < overlap_of_mmoe
    assert entropy < entropy_of_mmoe / 3


def test_gates_whose_weights_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ConfigError, match="the weights of switch gates need not sum to one, and so are no probabil"):
        model_of(TWO, gate={"kind": "switch"})


@pytest.mark.parametrize(
    ("task", "architecture", "message"),
    [
        (
            {"kind": "quantile", "label": "y"},
            {},
            "architecture.kind: experts cannot compete for y, only for binary, cla",
        ),
        ({"kind": "ordinal", "label": "y"}, {}, "architecture.kind: experts cannot compete for y"),
        ({"kind": "zero_inflated_lognormal", "label": "y"}, {}, "architecture.kind: experts cannot compete for y"),
        ({"kind": "binary", "label": "y"}, {"mixes": "weights"}, "mixes: merged experts predict nothing by themselves"),
        (
            {"kind": "binary", "label": "y"},
            {"gate": {"kind": "top_k"}, "unchosen": {}},
            "unchosen: every expert predicts by itself, with nothing of those unchosen; drop it",
        ),
    ],
)
def test_what_cannot_compete_is_refused(task: dict[str, Any], architecture: dict[str, Any], message: str) -> None:
    values = {
        "name": "refused",
        "data": {"train": "log.parquet"},
        "inputs": {"features": {"item": {"kind": "id"}}},
        "tasks": {"y": task},
        "model": {"architecture": {"kind": "local_experts", **architecture}},
    }

    with pytest.raises(ConfigError, match=message):
        config_from_dict(ExperimentConfig, values)
