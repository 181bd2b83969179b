"""Attributions are Shapley values: they equal the paper's sum over sets, and add up whatever the model is."""

# C rows, F features, T tasks

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from recmoe.embeddings.tables import PlainTables
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.model import attributions as module
from recmoe.model.attributions import SidedRows, attributions, default_orders, explained_predictions
from recmoe.tasks import TASK_KINDS
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

LAYOUT = InputLayout(
    tables=(TableSpec("tag", 9, 3, "mean", ("tags",)), TableSpec("country", 4, 2, "sum", ("country",))),
    sparse=(
        SparseKey("tags", "tags", "item", "tag", 3, is_list=True),
        SparseKey("country", "country", "user", "country", 2),
    ),
    dense=(DenseColumn("price", "price", "item", "value"), DenseColumn("age", "age", "user", "position", 3, 2)),
)
ROWS = SidedRows(
    shared=Batch(torch.tensor([[2.5], [0.5]]), torch.ones(1, 2).int(), torch.tensor([1, 3]), torch.zeros(2, 0)),
    own=Batch(
        torch.tensor([[1.5], [0.0], [-2.0]]),
        torch.tensor([[2, 0, 1]], dtype=torch.int32),
        torch.tensor([4, 5, 8]),
        torch.zeros(3, 0),
    ),
    request_C=torch.tensor([0, 1, 0]),
)
"""Two users; the second candidate has nothing of its own."""
MISSING = SidedRows(
    shared=Batch(torch.tensor([[1.0]]), torch.ones(1, 1).int(), torch.tensor([0]), torch.zeros(1, 0)),
    own=Batch(torch.tensor([[0.0]]), torch.zeros(1, 1).int(), torch.zeros(0).long(), torch.zeros(1, 0)),
    request_C=torch.tensor([0]),
)
FEATURES = ("country", "age", "tags", "price")
"""In the order of the model's input."""
EVERY_ORDER = list(itertools.permutations(range(len(FEATURES))))
MMOE = {"architecture": {"kind": "mmoe", "num_experts": 3, "expert_hidden": [8]}}


def ranker_of(model: dict[str, Any]) -> MultiTaskRanker:
    tasks = TaskSet({name: BinaryTaskConfig(label=name) for name in ("click", "buy")})
    torch.manual_seed(0)
    ranker = build_model(
        layout=LAYOUT,
        tasks=tasks,
        config=ModelConfig.model_validate(model),
        tables=lambda rows: PlainTables(rows, seed=0, init_std=1.0),
    )
    with torch.no_grad():
        for weight in ranker.parameters():
            weight.normal_(std=0.5)
    return ranker.eval()


def given(ranker: MultiTaskRanker, row: int, features: Sequence[str]) -> Tensor:
    """v of a set of features, in log-odds: a row with them alone, each put in its place by hand."""
    request = int(ROWS.request_C[row])
    shared, own = MISSING.shared, MISSING.own
    country = ROWS.shared.values[request] if "country" in features else shared.values[0]
    age = ROWS.shared.dense_BF[request] if "age" in features else shared.dense_BF[0]
    tags = [[4, 5], [], [8]][row] if "tags" in features else []
    price = ROWS.own.dense_BF[row] if "price" in features else own.dense_BF[0]
    nothing = torch.zeros(1, 0)
    output = ranker.forward_sided(
        Batch(age[None], torch.ones(1, 1).int(), country[None], nothing),
        Batch(price[None], torch.tensor([[len(tags)]]).int(), torch.tensor(tags, dtype=torch.int64), nothing),
        torch.tensor([0]),
    )
    return output.logits_BZ[0].double()


@torch.no_grad()
def by_equation_8(ranker: MultiTaskRanker, row: int) -> Tensor:
    """moves_FT: the weighted sum over all sets that lack a feature."""
    num_features = len(FEATURES)
    moves = []
    for feature in FEATURES:
        others = [name for name in FEATURES if name != feature]
        moved_T = torch.zeros(2, dtype=torch.float64)
        for size in range(num_features):
            weight = math.factorial(size) * math.factorial(num_features - size - 1) / math.factorial(num_features)
            for some in itertools.combinations(others, size):
                moved_T += weight * (given(ranker, row, [*some, feature]) - given(ranker, row, some))
        moves.append(moved_T)
    return torch.stack(moves)


@torch.no_grad()
def test_all_orders_give_the_sum_of_the_paper() -> None:
    ranker = ranker_of(MMOE)

    found = attributions(ranker, ROWS, MISSING, orders=EVERY_ORDER)

    assert found.features == FEATURES
    for row in range(3):
        torch.testing.assert_close(found.moves_CFT[row], by_equation_8(ranker, row), rtol=0, atol=1e-4)
        torch.testing.assert_close(found.predicted_CT[row], given(ranker, row, FEATURES), rtol=0, atol=1e-4)
        torch.testing.assert_close(found.base_CT[row], given(ranker, row, []), rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("gate", ["softmax", "top_k"])
def test_attributions_add_up_by_any_orders(gate: str) -> None:
    ranker = ranker_of({"architecture": {**MMOE["architecture"], "gate": {"kind": gate}}})

    found = attributions(ranker, ROWS, MISSING)

    assert (found.predicted_CT - found.base_CT).abs().min() > 0.01
    torch.testing.assert_close(found.base_CT + found.moves_CFT.sum(dim=1), found.predicted_CT, rtol=0, atol=1e-12)


@torch.no_grad()
def test_feature_of_a_linear_model_moves_as_much_as_leaving_it_out() -> None:
    # The linear part alone, in which no two features act together.
    ranker = ranker_of({"architecture": {"kind": "single_task", "hidden": [4]}, "towers": {"hidden": []}})
    for weight in ranker.model.parameters():
        weight.zero_()

    found = attributions(ranker, ROWS, MISSING)

    for place, feature in enumerate(FEATURES):
        others = [name for name in FEATURES if name != feature]
        left_out_T = given(ranker, 0, FEATURES) - given(ranker, 0, others)
        torch.testing.assert_close(found.moves_CFT[0, place], left_out_T, rtol=0, atol=1e-5)
    assert found.moves_CFT[0].abs().max() > 0.1


@torch.no_grad()
def test_feature_that_is_missing_moves_nothing() -> None:
    found = attributions(ranker_of(MMOE), ROWS, MISSING)

    missing = [FEATURES.index("tags"), FEATURES.index("price")]
    assert found.moves_CFT[1, missing].abs().max() < 1e-5
    assert found.moves_CFT[1].abs().max() > 0.01


@pytest.mark.parametrize("num_features", [1, 2, 3, 7, 40])
def test_orders_are_permutations_in_pairs_with_their_reverses(num_features: int) -> None:
    orders = default_orders(num_features)

    assert orders == default_orders(num_features)
    assert len(orders) == 4
    assert all(sorted(order) == list(range(num_features)) for order in orders)
    assert [order[::-1] for order in orders[::2]] == orders[1::2]


def test_pair_of_orders_is_exact_where_two_features_act_together_at_most() -> None:
    effects_FF = torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Of an effect of two features each has a half, equation 8 says.
    expected_F = effects_FF.diagonal() + 0.5 * (effects_FF.triu(1).sum(1) + effects_FF.triu(1).sum(0))

    orders = default_orders(7)
    sets_SF, steps_N3 = module._steps(orders)
    given_SF = sets_SF.double()
    values_S = torch.einsum("sf,fg,sg->s", given_SF, effects_FF.triu(), given_SF)
    moves_N = values_S[steps_N3[:, 2]] - values_S[steps_N3[:, 1]]
    found_F = torch.zeros(7, dtype=torch.float64).index_add(0, steps_N3[:, 0], moves_N) / len(orders)

    torch.testing.assert_close(found_F, expected_F)


@torch.no_grad()
def test_passes_of_few_rows_change_nothing_and_each_is_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = ranker_of(MMOE)
    whole = attributions(ranker, ROWS, MISSING)
    checks: list[int] = []
    monkeypatch.setattr(module, "CHUNK_ROWS", 6)

    pieces = attributions(ranker, ROWS, MISSING, check=lambda: checks.append(len(checks)))

    # Of 16 sets at most 2 fit into a pass.
    assert 4 < len(checks) <= 8
    torch.testing.assert_close(pieces.moves_CFT, whole.moves_CFT, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_a_check_raises_ends_it() -> None:
    def check() -> None:
        raise TimeoutError("late")

    with pytest.raises(TimeoutError, match="late"):
        attributions(ranker_of(MMOE), ROWS, MISSING, check=check)


@pytest.mark.parametrize("kind", TASK_KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def test_prediction_of_every_kind_of_task_is_explained_in_its_unit(kind: Any) -> None:
    factors = {"first": BinaryTaskConfig(label="a"), "second": BinaryTaskConfig(label="b", space="a")}
    tasks = TaskSet(
        {**factors, "y": kind(of=("first", "second"))} if "of" in kind.model_fields else {"y": kind(label="b")}
    )
    logits_BZ = torch.randn(50, len(tasks.logit_names), generator=torch.Generator().manual_seed(0))

    found_B = explained_predictions(tasks, logits_BZ)[:, -1]

    predictions_B = tasks.predict(logits_BZ)[:, -1]
    is_probability = tasks.kinds["y"] == "binary"
    assert found_B.dtype == torch.float64
    torch.testing.assert_close(
        torch.sigmoid(found_B) if is_probability else found_B, predictions_B.double(), rtol=1e-5, atol=1e-6
    )


def test_log_odds_are_those_of_the_logit_far_beyond_what_a_probability_in_float32_tells() -> None:
    tasks = TaskSet({"click": BinaryTaskConfig(label="click")})
    logits_BZ = torch.tensor([[-25.0], [0.5], [25.0], [200.0]])

    found_B = explained_predictions(tasks, logits_BZ)[:, 0]

    torch.testing.assert_close(found_B[:3], logits_BZ[:3, 0].double(), rtol=1e-5, atol=0)
    assert found_B[3] == pytest.approx(27.63, abs=0.01)
