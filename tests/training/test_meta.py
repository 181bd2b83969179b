"""Steps on few rows and moves of their start, against loops written from the papers."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters, find_tables
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import ModelConfig, build_training_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.adaptation import AdaptationConfig
from recmoe.training.meta import FomamlConfig, ReptileConfig

LR = 0.1


@pytest.fixture
def model(shop_encoder: FeatureEncoder, shop_config: dict[str, Any]) -> nn.Module:
    """A training model with small tables."""
    tasks = TypeAdapter(dict[str, TaskConfig]).validate_python(shop_config["tasks"])
    return build_training_model(
        layout=shop_encoder.layout,
        tasks=TaskSet(tasks),
        config=ModelConfig.model_validate(shop_config["model"]),
        tables=lambda layout: PlainTables(layout, seed=1, init_std=0.3),
        seed=1,
    )


@pytest.fixture
def batches(shop_log: pa.Table, shop_encoder: FeatureEncoder) -> list[Batch]:
    return [shop_encoder.encode(shop_log.slice(start, 20)) for start in range(0, 120, 20)]


def dense(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in dense_parameters(model)}


def gradients(model: nn.Module, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    model(batch)[0].backward()
    return [torch.zeros_like(w) if w.grad is None else w.grad.clone() for _, w in dense_parameters(model)]


def stepped(model: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """A copy after steps of plain gradient descent on the dense weights."""
    copy = deepcopy(model).requires_grad_(True).train()
    for batch in batches:
        found = gradients(copy, batch)
        with torch.no_grad():
            for (_, weight), gradient in zip(dense_parameters(copy), found, strict=True):
                weight -= LR * gradient
    return copy


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        torch.testing.assert_close(
            weight, expected[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_steps_are_gradient_descent_on_what_stands_beside_the_tables(model: nn.Module, batches: list[Batch]) -> None:
    learner = AdaptationConfig(lr=LR).build(model, is_new={})
    start, tables = dense(model), {n: w.clone() for n, w in find_tables(model)[1].table_weights().items()}
    expected = dense(stepped(model, batches[:3]))

    done = list(learner.steps(batches[:3]))

    assert done == [1, 2, 3]
    assert_close(dense(model), expected)
    for name, weight in find_tables(model)[1].table_weights().items():
        assert torch.equal(weight, tables[name])
    learner.restart()
    assert all(torch.equal(weight, start[name]) for name, weight in dense(model).items())


def test_reptile_moves_the_start_towards_the_mean_of_where_domains_lead(model: nn.Module, batches: list[Batch]) -> None:
    learner = AdaptationConfig(lr=LR).build(model, is_new={})
    start = dense(model)
    ends = [dense(stepped(model, part)) for part in (batches[:3], batches[3:])]
    expected = {
        name: weight + 0.25 * 0.4 * ((ends[0][name] - weight) + (ends[1][name] - weight)) / 2
        for name, weight in start.items()
    }

    ReptileConfig(share=0.4).build(learner).round([iter(batches[:3]), iter(batches[3:])], num_steps=3, left=0.25)

    assert_close(dense(model), expected)
    learner.restart()
    assert_close(dense(model), expected)


def test_fomaml_steps_the_start_by_gradients_after_the_steps(model: nn.Module, batches: list[Batch]) -> None:
    learner = AdaptationConfig(lr=LR).build(model, is_new={})
    naive = deepcopy(model).requires_grad_(True)
    adam = torch.optim.Adam([weight for _, weight in dense_parameters(naive)], lr=0.01)
    rule = FomamlConfig(lr=0.01).build(learner)
    for left in (1.0, 0.5):
        sums = [gradients(stepped(naive, part[:2]), part[2]) for part in (batches[:3], batches[3:])]
        for (_, weight), one, other in zip(dense_parameters(naive), *sums, strict=True):
            weight.grad = (one + other) / 2
        adam.param_groups[0]["lr"] = 0.01 * left
        adam.step()

        rule.round([iter(batches[:3]), iter(batches[3:])], num_steps=2, left=left)

        assert_close(dense(model), dense(naive))


def test_towers_alone_move_where_they_are_asked_for(model: nn.Module, batches: list[Batch]) -> None:
    learner = AdaptationConfig(weights="towers").build(model, is_new={})
    start = dense(model)

    list(learner.steps(batches[:2]))

    moved = {name for name, weight in dense(model).items() if not torch.equal(weight, start[name])}
    assert moved
    assert all(".towers." in name for name in moved)


def test_part_of_a_weight_moves_where_the_others_are_not_new(model: nn.Module, batches: list[Batch]) -> None:
    name = "ranker.model.towers.0.layers.0.weight"
    mask = torch.zeros_like(dict(dense_parameters(model))[name])
    mask[1] = 1.0
    learner = AdaptationConfig().build(model, is_new={name: mask})
    start = dense(model)

    list(learner.steps(batches[:2]))

    now = dense(model)
    assert [other for other, weight in now.items() if not torch.equal(weight, start[other])] == [name]
    assert (now[name] != start[name]).any(dim=1).tolist() == [row == 1 for row in range(len(mask))]


def test_loss_that_is_not_finite_stops_the_steps(model: nn.Module, batches: list[Batch]) -> None:
    learner = AdaptationConfig(lr=1e30).build(model, is_new={})

    with pytest.raises(TrainingError, match=r"not finite; lower adaptation\.lr or adaptation\.steps"):
        list(learner.steps(batches))
