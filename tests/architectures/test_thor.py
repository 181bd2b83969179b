"""THOR: the paper's loss of two draws, as a loop; what serves; and experts that come to predict alike."""

from typing import Any

import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.seam import Inputs, Outputs, Parts, Targets
from recmoe.architectures.thor import THOR, DrawnGate, THORConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig
from recmoe.model.build import build_training_model
from recmoe.model.objective import TrainingModel
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

NUM_EXPERTS = 3
BINARY = {"click": {"kind": "binary", "label": "click"}, "buy": {"kind": "binary", "label": "buy"}}
LOG = pa.table({"item": ["a", "b", "a", "b", "c"], "click": [1, 0, 1, 0, 1], "buy": [1, 0, None, 0, 1]})


def tasks_of(tasks: dict[str, Any]) -> TaskSet:
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks))


def model_of(**changes: Any) -> THOR:
    torch.manual_seed(0)
    tasks = tasks_of(BINARY)
    config = THORConfig(**{"num_experts": NUM_EXPERTS, "expert_hidden": (5, 4), "num_levels": 2, **changes})
    model = config.assemble(
        Parts(
            widths={"all": 6},
            tasks=tasks,
            make_tower=lambda width, name: TowerConfig(hidden=(3,)).build(in_features=width, logits=tasks.logits[name]),
        )
    )
    assert isinstance(model, THOR)
    return model


def training_model(**changes: Any) -> tuple[FeatureEncoder, TrainingModel]:
    architecture = {"kind": "thor", "num_experts": NUM_EXPERTS, "expert_hidden": [5], **changes}
    schema = FeatureSchema.model_validate({"width": 4, "features": {"item": {"kind": "id"}}})
    tasks = tasks_of({**BINARY, "hours": {"kind": "regression", "label": "hours", "weight": 0.5}})
    log = LOG.append_column("hours", [[3.0, 50.0, 7.0, 20.0, 90.0]])
    encoder = FeatureEncoder.fit(schema, [log], tasks.label_columns)
    model = build_training_model(
        layout=encoder.layout,
        tasks=tasks,
        config=ModelConfig.model_validate({"architecture": architecture}),
        tables=lambda rows: PlainTables(rows, init_std=1.0),
        starts=tasks.starts(tasks.label_sums(encoder.encode(log).labels_BL)),
    )
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return encoder, model


def network(model: THOR, level: int, expert: int, x_D: Tensor) -> Tensor:
    experts = model.inner.architecture.levels[level].experts
    for weight_EOD, bias_EO in zip(experts.weights_EOD, experts.biases_EO, strict=True):
        x_D = torch.relu(weight_EOD[expert] @ x_D + bias_EO[expert])
    return x_D


def logits(model: THOR, h_H: Tensor) -> Tensor:
    return torch.cat([tower(h_H.unsqueeze(0))[0] for tower in model.inner.towers])


def test_both_draws_equal_a_loop_over_the_experts_that_were_drawn() -> None:
    model = model_of().requires_grad_(False).train()
    x_BD = torch.randn(7, 6)
    torch.manual_seed(5)

    outputs = model(Inputs(x_BD))

    torch.manual_seed(5)
    draws = [[torch.empty(7, dtype=torch.int64).random_(NUM_EXPERTS) for _ in range(2)] for _ in range(2)]
    for drawn, found_BZ in zip(draws, [outputs.logits_BZ, outputs.again_BZ], strict=True):
        for row, x_D in enumerate(x_BD):
            h_H = x_D
            for level in range(2):
                h_H = network(model, level, int(drawn[level][row]), h_H)
            torch.testing.assert_close(found_BZ[row], logits(model, h_H))
    assert not torch.equal(outputs.logits_BZ, outputs.again_BZ)


def test_loss_is_half_of_the_papers() -> None:
    encoder, model = training_model(consistency=3.0)
    log = LOG.append_column("hours", [[3.0, 50.0, 7.0, 20.0, 90.0]])
    batch = encoder.encode(log)
    torch.manual_seed(5)

    loss, named = model(batch)

    torch.manual_seed(5)
    with torch.no_grad():
        output = model.ranker(batch)
    labels, unit = log.to_pydict(), float(model.ranker.unit_T[2])
    expected, apart = 0.0, 0.0
    for row in range(5):
        for place, name in enumerate(("click", "buy")):
            p, q = (torch.sigmoid(z_BZ[row, place]) for z_BZ in (output.logits_BZ, output.again_BZ))
            if labels[name][row] is not None:
                for probability in (p, q):
                    expected -= float(torch.log(probability if labels[name][row] else 1 - probability))
            # CR = ½ · (KL(p1 ‖ p2) + KL(p2 ‖ p1))
            forth = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
            back = q * torch.log(q / p) + (1 - q) * torch.log((1 - q) / (1 - p))
            apart += float(forth + back) / 2
        for z_BZ in (output.logits_BZ, output.again_BZ):
            expected += 0.5 * float((z_BZ[row, 2] - labels["hours"][row]) ** 2) / unit**2
        apart += float((output.logits_BZ[row, 2] - output.again_BZ[row, 2]) ** 2) / unit**2
    # L = L(p1) + L(p2) + α · CR
    torch.testing.assert_close(loss.item(), (expected + 3.0 * apart) / 5 / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(named[-1].item(), apart / 5, rtol=1e-4, atol=1e-4)
    assert model.loss_names[-1] == "consistency"


def test_served_rows_draw_nothing_and_have_the_mean_of_all_experts() -> None:
    model = model_of(num_levels=1).requires_grad_(False).eval()
    x_BD = torch.randn(4, 6)

    outputs = model(Inputs(x_BD))

    assert outputs.again_BZ is None
    assert torch.equal(model(Inputs(x_BD)).logits_BZ, outputs.logits_BZ)
    for row, x_D in enumerate(x_BD):
        mean_H = torch.stack([network(model, 0, expert, x_D) for expert in range(NUM_EXPERTS)]).mean(dim=0)
        torch.testing.assert_close(outputs.logits_BZ[row], logits(model, mean_H))


def test_model_that_serves_one_expert_computes_that_one_alone() -> None:
    model = model_of(serves="one").requires_grad_(False).eval()
    x_BD = torch.randn(4, 6)
    expected = torch.stack([logits(model, network(model, 1, 0, network(model, 0, 0, x_D))) for x_D in x_BD])
    for level in model.inner.architecture.levels:
        for weight_EOD in level.experts.weights_EOD:
            weight_EOD[1:] = torch.nan

    logits_BZ = model(Inputs(x_BD)).logits_BZ

    torch.testing.assert_close(logits_BZ, expected)


def test_every_expert_is_drawn_as_often() -> None:
    torch.manual_seed(0)

    p_BV = DrawnGate(num_experts=4, serves="all").train()(torch.zeros(8000, 1))

    assert torch.equal(p_BV.sum(dim=1), torch.ones(8000))
    torch.testing.assert_close(p_BV.mean(dim=0), torch.full((4,), 0.25), rtol=0, atol=0.02)


def disagreement(consistency: float) -> float:
    """Of the predictions of new rows by two draws, after some steps on labels that one feature decides."""
    model = model_of(consistency=consistency, num_levels=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x_BD = torch.randn(256, 6)
    labels_BT = (x_BD[:, :2] + 1.5 * torch.randn(256, 2) > 0).float()
    for _ in range(150):
        outputs: Outputs = model(Inputs(x_BD))
        loss = sum(
            torch.nn.functional.binary_cross_entropy_with_logits(z_BZ, labels_BT)
            for z_BZ in (outputs.logits_BZ, outputs.again_BZ)
        )
        for name, own in model.losses(outputs, Targets(labels_BT, torch.ones(256, 2))).items():
            loss = loss + model.loss_weights[name] * own
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    outputs = model(Inputs(torch.randn(512, 6)))
    return (torch.sigmoid(outputs.logits_BZ) - torch.sigmoid(outputs.again_BZ)).abs().mean().item()


def test_experts_come_to_predict_alike_by_the_consistency_loss() -> None:
    apart, alike = disagreement(0.0), disagreement(3.0)

    assert alike < apart / 2
