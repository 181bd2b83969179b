"""The seam of trunks: an architecture reads what a trunk gives, and its groups are what they were."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures.trunks.trunk import TrunkKind, TrunkOutput
from recmoe.axes import describe
from recmoe.conformance import check, subject_of
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, build_training_model, feature_widths
from recmoe.moe.linear import linear
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

LOG = pa.table(
    {
        "user": [f"u{row % 3}" for row in range(8)],
        "page": [f"p{row % 2}" for row in range(8)],
        "item": [f"i{row}" for row in range(8)],
        "price": [float(row) for row in range(8)],
        "click": [row % 2 for row in range(8)],
        "buy": [row % 3 % 2 for row in range(8)],
    }
)
SCHEMA = FeatureSchema.model_validate(
    {
        "width": 2,
        "features": {
            "item": {"kind": "id"},
            "user": {"kind": "id", "side": "user"},
            "page": {"kind": "id", "side": "context"},
            "price": {"kind": "numeric"},
        },
    }
)
TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
BOTTOM = {"kind": "shared_bottom", "hidden": [4]}
PEPNET = {"kind": "pepnet", "domain": "place", "hidden": [4], "gate_hidden": 3}


class PricedConfig(TrunkKind):
    """Page and price through one matrix, which shrinks by a loss of its own."""

    kind: Literal["priced"] = "priced"

    def groups(self, widths: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        assert named.keys() <= {"place"}
        return {"priced": tuple(name for name in widths if name in ("price", "page", "feature1", "feature5"))}

    def build(self, widths: Mapping[str, int]) -> nn.Module:
        return Priced(widths["priced"])


class Priced(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(width, 5)
        self.out_features = 5
        self.loss_weights = {"shrinking": 0.5}

    def forward(self, x: Any, groups: Any) -> TrunkOutput:  # noqa: ARG002
        x_BD = linear(groups["priced"], self.matrix.weight, self.matrix.bias)
        return TrunkOutput(x_BD, {"shrinking": self.matrix.weight.square().sum()})


def model_on(trunk: TrunkKind | None, architecture: dict[str, Any]) -> tuple[FeatureEncoder, Any]:
    groups = {"place": ["page"]}
    config = ModelConfig.model_validate({"architecture": architecture, "groups": groups, "towers": {"hidden": [3]}})
    config = config if trunk is None else config.model_copy(update={"trunk": trunk})
    encoder = FeatureEncoder.fit(SCHEMA, [LOG], config.label_columns(TASKS))
    made = build_training_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=config,
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
        seed=1,
    )
    return encoder, made


def test_architecture_reads_what_the_trunk_gives() -> None:
    encoder, training = model_on(PricedConfig(), BOTTOM)
    ranker = training.ranker.eval()
    batch = encoder.encode(LOG)

    logits_BZ = ranker.model(ranker.input_layer(batch).inputs).logits_BZ

    inputs = ranker.input_layer(batch).inputs
    page_and_price_BD = inputs.x[:, [2, 3, 6]]
    trunk, network = ranker.model.trunk, ranker.model.inner.architecture.experts
    h_BH = torch.relu(trunk.matrix(page_and_price_BD) @ network.weights_EOD[0][0].t() + network.biases_EO[0][0])
    expected = torch.cat([tower(h_BH) for tower in ranker.model.inner.towers], dim=1)
    torch.testing.assert_close(logits_BZ, expected)
    assert list(feature_widths(encoder.layout).items()) == [("user", 2), ("page", 2), ("item", 2), ("price", 1)]


def test_groups_of_an_architecture_are_features_as_they_are() -> None:
    _, training = model_on(PricedConfig(), PEPNET)

    domain_gate = training.ranker.model.inner.architecture.domain_gate

    assert domain_gate.of_group.weight.shape[1] == 2
    assert domain_gate.of_input.weight.shape[1] == 5


def test_loss_of_a_trunk_is_added_to_that_of_the_model() -> None:
    encoder, training = model_on(PricedConfig(), BOTTOM)
    training.eval()

    loss, named = training(encoder.encode(LOG))

    shrinking = training.ranker.model.trunk.matrix.weight.square().sum()
    assert training.loss_names == ("click", "buy", "shrinking")
    torch.testing.assert_close(loss, named[:2].sum() + 0.5 * shrinking)
    torch.testing.assert_close(named[2], shrinking.detach())


@pytest.mark.parametrize("architecture", [BOTTOM, PEPNET], ids=["shared_bottom", "pepnet"])
def test_ranking_by_sides_gives_the_scores_of_whole_rows(architecture: dict[str, Any]) -> None:
    encoder, training = model_on(PricedConfig(), architecture)
    ranker = training.ranker.eval()
    whole = encoder.encode(LOG, with_labels=False)
    shared = encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False)
    own = encoder.encode(LOG, sides=OWN_SIDES, with_labels=False)

    sided_CT = ranker.predict_sided(shared, own, torch.arange(8))

    torch.testing.assert_close(sided_CT, ranker.predict(whole), rtol=1e-5, atol=1e-6)


def test_balancing_reaches_what_tasks_share_above_the_trunk() -> None:
    config = ModelConfig.model_validate({"architecture": BOTTOM, "balancing": {"kind": "sum"}})
    encoder = FeatureEncoder.fit(SCHEMA, [LOG], config.label_columns(TASKS))

    training: Any = build_training_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=config.model_copy(update={"trunk": PricedConfig()}),
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )

    assert training.ranker.model.inner.architecture.fork is training.fork is not None


def test_model_without_a_trunk_has_the_names_and_numbers_it_had() -> None:
    _, training = model_on(None, BOTTOM)

    names = {name.split(".")[0] for name in training.ranker.model.state_dict()}

    assert names == {"architecture", "towers"}
    assert training.loss_names == ("click", "buy")
    assert ModelConfig.model_validate({}).trunk.kind == "none"


def test_trunk_is_refused_below_what_reads_tables_of_its_own() -> None:
    config = ModelConfig.model_validate({"architecture": {"kind": "stem"}}).model_copy(update={"trunk": PricedConfig()})

    problems = dict(config.task_problems(TASKS))

    assert problems["trunk.kind"] == (
        "stem reads several vectors of every id, and nothing of a trunk; drop it, or choose another "
        "model.architecture.kind"
    )


def test_trunk_of_anybody_is_checked_below_a_mixture() -> None:
    def loop(trunk: Priced, groups: Mapping[str, Tensor]) -> Tensor:
        return trunk.matrix.weight @ groups["priced"] + trunk.matrix.bias

    outcomes = {one.property: one for one in check(subject_of(PricedConfig, loop=loop))}

    # Two features of six cannot answer for the others.
    assert [name for name, one in outcomes.items() if one.verdict != "passed"] == ["planted tasks are learned"]
    assert outcomes["own losses are as named"].sentence.startswith("shrinking")


def test_wrong_trunk_is_found() -> None:
    def loop(trunk: Priced, groups: Mapping[str, Tensor]) -> Tensor:
        return trunk.matrix.weight @ groups["priced"]

    [outcome] = [one for one in check(subject_of(PricedConfig, loop=loop)) if one.property == "equal to a naive loop"]

    assert outcome.verdict == "failed"
    assert "outputs differ from the loop's" in outcome.sentence


def test_weights_of_a_trunk_say_what_they_belong_to() -> None:
    _, training = model_on(PricedConfig(), BOTTOM)

    described = describe(training.ranker.model)

    assert {name for name in described if name.startswith("trunk.")} == {"trunk.matrix.weight", "trunk.matrix.bias"}
