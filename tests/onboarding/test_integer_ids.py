"""Whole numbers: ids where their names or their values say so, numbers where a neighbour is a neighbour."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from recmoe.onboarding.starter import StarterConfig

NUM_ROWS = 2000

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


def kinds_of(starter: StarterConfig) -> dict[str, str]:
    return {feature.column: feature.kind for feature in starter.roles.features}


def zipf_ids(seed: int, num_values: int = 150, low: int = 0, high: int = 5000) -> np.ndarray:
    """Ids of which some are frequent, in no order."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(np.arange(low, high), num_values, replace=False)
    shares = 1 / np.arange(1, num_values + 1)
    return rng.choice(ids, NUM_ROWS, p=shares / shares.sum())


THINGS = ["ip", "app", "device", "os", "channel", "C14", "C20", "banner_pos", "categorical_2", "cms_segid", "customer"]


@pytest.mark.parametrize("name", THINGS)
def test_integers_called_like_things_are_ids(plain_log: MakeLog, start: Start, name: str) -> None:
    starter = start(plain_log(**{name: zipf_ids(1)}))

    assert kinds_of(starter)[name] == "id"


@pytest.mark.parametrize("type_", [np.int64, np.float64])
def test_integers_in_no_order_are_ids_and_say_why(plain_log: MakeLog, start: Start, type_: type) -> None:
    starter = start(plain_log(f7=zipf_ids(1).astype(type_)))

    assert kinds_of(starter)["f7"] == "id"
    (line,) = (line for line in starter.text.splitlines() if line.startswith("    f7:"))
    assert "values in no order: a number? then kind: numeric" in line


def test_few_integers_with_gaps_are_ids(plain_log: MakeLog, start: Start) -> None:
    starter = start(plain_log(f8=np.array([1001, 1002, 1005, 1010, 1012])[np.arange(NUM_ROWS) % 5]))

    assert kinds_of(starter)["f8"] == "id"


@pytest.mark.parametrize("name", ["price_cents", "age", "num_views", "numerical_8", "year"])
def test_integers_called_like_numbers_are_numbers(plain_log: MakeLog, start: Start, name: str) -> None:
    starter = start(plain_log(**{name: zipf_ids(1)}))

    assert kinds_of(starter)[name] == "numeric"


@pytest.mark.parametrize("values", ["poisson", "normal", "geometric"])
def test_integers_whose_neighbours_are_alike_are_numbers(plain_log: MakeLog, start: Start, values: str) -> None:
    rng = np.random.default_rng(2)
    drawn = {
        "poisson": rng.poisson(60, NUM_ROWS),
        "normal": np.round(rng.normal(500, 20, NUM_ROWS)).astype(np.int64),
        "geometric": rng.geometric(0.05, NUM_ROWS),
    }

    assert kinds_of(start(plain_log(f9=drawn[values])))["f9"] == "numeric"


def test_counts_are_no_ids_of_items(plain_log: MakeLog, start: Start) -> None:
    counts = np.random.default_rng(1).integers(0, 12, NUM_ROWS)

    starter = start(plain_log(**{"user-item_affinity_0": counts}))

    (feature,) = (feature for feature in starter.roles.features if feature.column == "user-item_affinity_0")
    assert (feature.kind, feature.table) == ("numeric", None)


def test_bucket_of_few_values_is_no_list(plain_log: MakeLog, start: Start) -> None:
    starter = start(
        plain_log(request_id=None, fin_page_id_cnt_120=np.arange(NUM_ROWS) % 7, page_id=np.arange(NUM_ROWS) % 7)
    )

    assert starter.roles.group == "user_id"


def test_finest_name_of_the_advertised_thing_is_the_item(plain_log: MakeLog, start: Start) -> None:
    item = plain_log()["item_id"].to_numpy()

    starter = start(plain_log(item_id=None, campaign_id=item // 3, adgroup_id=item, brand=zipf_ids(1)))

    assert starter.roles.item == "adgroup_id"


def test_customer_who_advertises_is_neither_the_user_nor_on_his_side(plain_log: MakeLog, start: Start) -> None:
    item = plain_log()["item_id"].to_numpy()

    starter = start(plain_log(request_id=None, customer=item * 31 % 977))

    (feature,) = (feature for feature in starter.roles.features if feature.column == "customer")
    assert starter.roles.user == "user_id"
    assert (feature.kind, feature.side) == ("id", "item")


def test_place_in_a_list_is_noted(plain_log: MakeLog, start: Start) -> None:
    starter = start(plain_log(position=np.arange(NUM_ROWS) % 5 + 1))

    (line,) = (line for line in starter.text.splitlines() if line.startswith("    position:"))
    assert line.endswith("a place in a list? then the log's own order is learned with it")
