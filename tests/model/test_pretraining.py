"""The loss of hidden ids: its formula row by row, what is hidden, and that what is hidden is not read."""

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import nn

from recmoe.architectures import ArchitectureConfig
from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, PretrainingModel, build_pretraining_model
from recmoe.model.pretraining import NOT_GUESSED
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

NUM_ROWS = 64
WIDTH = 4
TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
LAYOUT = InputLayout(
    tables=(
        TableSpec("user", 8, WIDTH, "sum", ("user",)),
        TableSpec("tags", 6, WIDTH, "sum", ("tags",)),
        TableSpec("item", 12, WIDTH, "sum", ("item",)),
    ),
    sparse=(
        SparseKey("user", "user", "user", "user", WIDTH),
        SparseKey("tags", "tags", "user", "tags", WIDTH, is_list=True),
        SparseKey("item", "item", "item", "item", WIDTH),
    ),
    dense=(DenseColumn("price", "price", "item", "value"),),
)
KINDS = [kind.model_fields["kind"].default for kind in get_args(get_args(ArchitectureConfig)[0])]
MMOE: dict[str, Any] = {"architecture": {"kind": "mmoe", "num_experts": 3, "expert_hidden": [5]}}


def pretraining_model(model: dict[str, Any] | None = None, **pretraining: Any) -> PretrainingModel:
    config = ModelConfig.model_validate({**(model or MMOE), "pretraining": {"max_classes": 9, **pretraining}})
    return build_pretraining_model(
        layout=LAYOUT,
        tasks=TASKS,
        config=config,
        tables=lambda rows: PlainTables(rows, seed=2, init_std=1.0),
        features=("user", "item"),
        seed=1,
    )


@pytest.fixture
def batch() -> Batch:
    """Lists of 0, 1 or 2 tags, and ids of which some are missing."""
    drawn = torch.Generator().manual_seed(0)
    lengths_B = torch.randint(0, 3, (NUM_ROWS,), generator=drawn)
    ones_B = torch.ones(NUM_ROWS, dtype=torch.int64)
    sizes = (8, NUM_ROWS), (6, int(lengths_B.sum())), (12, NUM_ROWS)
    return Batch(
        dense_BF=torch.randn(NUM_ROWS, 1, generator=drawn),
        lengths_KB=torch.stack([ones_B, lengths_B, ones_B]).to(torch.int32),
        values=torch.cat([torch.randint(0, *size[:1], size[1:], generator=drawn) for size in sizes]),
        labels_BL=torch.empty(NUM_ROWS, 0),
    )


def ids_of(batch: Batch) -> tuple[list[int], list[int], list[int]]:
    """Those of users, tags and items."""
    user, tags, item = torch.split(batch.values, batch.lengths_KB.sum(dim=1).tolist())
    return user.tolist(), tags.tolist(), item.tolist()


def test_share_of_the_ids_is_hidden_and_their_classes_are_the_labels(batch: Batch) -> None:
    model = pretraining_model(share=0.3)

    hidden = model.prepare(batch, 5)

    before, after = ids_of(batch), ids_of(hidden)
    assert after[1] == before[1]
    num_hidden = 0
    for column, (was, now, num_classes) in enumerate([(before[0], after[0], 7), (before[2], after[2], 9)]):
        for row in range(NUM_ROWS):
            label = hidden.labels_BL[row, column].item()
            if now[row] == was[row]:
                assert label == NOT_GUESSED
            else:
                assert (now[row], label) == (0, (was[row] - 1) % num_classes)
                num_hidden += 1
    num_known = sum(id != 0 for of_feature in (before[0], before[2]) for id in of_feature)
    assert num_hidden / num_known == pytest.approx(0.3, abs=0.1)


def test_what_is_hidden_depends_on_the_step_alone(batch: Batch) -> None:
    model, same = pretraining_model(), pretraining_model()

    assert torch.equal(model.prepare(batch, 3).values, same.prepare(batch, 3).values)
    assert not torch.equal(model.prepare(batch, 3).values, model.prepare(batch, 4).values)
    assert not torch.equal(model.prepare(batch, 3).values, model.prepare(batch, -3).values)


@torch.no_grad()
def test_loss_is_the_cross_entropy_of_hidden_ids_row_by_row(batch: Batch) -> None:
    model = pretraining_model(share=0.25).eval()
    hidden = model.prepare(batch, 0)
    loss, losses_N = model(hidden)

    x_BD = model.ranker.input_layer(hidden).inputs.x
    h = model.ranker.model.architecture(x_BD)[0]
    expected = []
    for column, feature in enumerate(("user", "item")):
        head = model.heads[feature]
        assert isinstance(head, nn.Linear)
        total = 0.0
        for row in range(NUM_ROWS):
            label = hidden.labels_BL[row, column].item()
            if label != NOT_GUESSED:
                z_C = head.weight @ torch.cat([h_BH[row] for h_BH in h]) + head.bias
                total += float(torch.logsumexp(z_C, 0) - z_C[int(label)])
        expected.append(total / (NUM_ROWS * 0.25))
    assert losses_N.tolist() == pytest.approx(expected, rel=1e-5)
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert model.loss_names == ("hidden.user", "hidden.item")


def test_hidden_id_has_no_influence_on_its_guess(batch: Batch) -> None:
    model = pretraining_model({**MMOE, "balance": 0.1}, share=0.5).eval()
    hidden = model.prepare(batch, 0)
    is_hidden_n = (hidden.values == 0) & (batch.values != 0)
    other = replace(batch, values=torch.where(is_hidden_n, batch.values % 5 + 1, batch.values))
    hidden_too = model.prepare(other, 0)

    assert is_hidden_n.any()
    assert not torch.equal(other.values, batch.values)
    for mine, theirs in zip(model.guess(hidden), model.guess(hidden_too), strict=True):
        assert torch.equal(mine, theirs)


@torch.no_grad()
def test_balance_terms_are_added(batch: Batch) -> None:
    terms = {"even": {"kind": "importance", "weight": 0.5}}
    model = pretraining_model({**MMOE, "balance": terms}).eval()

    loss, losses_N = model(model.prepare(batch, 0))

    assert model.loss_names == ("hidden.user", "hidden.item", "balance.even")
    assert float(loss) == pytest.approx(float(losses_N[:2].mean() + 0.5 * losses_N[2]), rel=1e-5)


@pytest.mark.parametrize("gate", [{"kind": "policy"}, {"kind": "stable", "feature": "user"}])
def test_gates_that_learn_by_losses_of_tasks_are_refused(gate: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gates of kind policy and stable learn by losses of tasks, which are not th"):
        pretraining_model({"architecture": {"kind": "mmoe", "gate": gate}})


def test_experts_that_predict_by_themselves_are_refused() -> None:
    with pytest.raises(ConfigError, match="experts of local_experts predict each by itself, and there is nothing that"):
        pretraining_model({"architecture": {"kind": "local_experts"}})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "local_experts"])
def test_every_architecture_learns_to_guess_and_all_its_weights_take_part(kind: str, batch: Batch) -> None:
    model = pretraining_model({"architecture": {"kind": kind}})
    untouched = {name: weight.detach().clone() for name, weight in model.heads.state_dict().items()}
    optimizer = torch.optim.Adam([weight for _, weight in dense_parameters(model)], lr=0.01)
    losses = []
    for _ in range(30):
        loss, _ = model(model.prepare(batch, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(torch.equal(weight, untouched[name]) for name, weight in model.heads.state_dict().items())
