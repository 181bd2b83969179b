"""A request with a user's id alone ranks as one with all that the store has of the user, histories among it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError, RequestError, SchemaError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore, RowStore
from recmoe.ranking.look_ups import LookUps
from recmoe.ranking.request import ColumnRequest, RankOptions, RankResponse
from recmoe.runs.stores import write_store
from tests.ranking.drawn_models import small_config

WriteModel = Callable[[Path, dict[str, Any], pa.Table], Path]

CONFIG = small_config(
    {
        "user_id": {"kind": "id", "side": "user"},
        "age": {"kind": "numeric", "side": "user"},
        "tags": {"kind": "id_list", "side": "user", "pooling": "sum", "separator": "|"},
        "history": {
            "kind": "sequence",
            "columns": {"item": {"column": "seen_items", "table": "item_id"}, "what": {"column": "seen_what"}},
            "time": "seen_at",
            "now": "now",
            "max_length": 4,
            "encoder": {"kind": "target_attention"},
        },
        "hour": {"kind": "numeric", "side": "context"},
        "item_id": {"kind": "id"},
    },
    {"ctr": "click"},
)
CANDIDATES = {"candidates": {"item_id": [100, 103, 107, 109]}}


@pytest.fixture(scope="module")
def users() -> pa.Table:
    """Users 1 to 20; of user 3 there is no history, of user 4 no age, and the history of user 9 is long."""
    random, ids = np.random.default_rng(1), list(range(1, 21))
    lengths = [0 if user == 3 else 9 if user == 9 else user % 4 + 1 for user in ids]

    def lists(draw: Callable[[int], Any], kind: pa.DataType) -> pa.Array:
        return pa.array(
            [None if user == 3 else draw(num).tolist() for user, num in zip(ids, lengths, strict=True)], pa.list_(kind)
        )

    return pa.table(
        {
            "user_id": ids,
            "age": pa.array([None if user == 4 else 20.0 + user for user in ids]),
            "tags": [f"t{user % 3}|t{user % 5}" for user in ids],
            "seen_items": lists(lambda num: random.integers(100, 110, num), pa.int64()),
            "seen_what": lists(lambda num: random.choice(["view", "buy"], num), pa.string()),
            "seen_at": lists(lambda num: np.sort(random.integers(0, 50, num)), pa.int64()),
            "notes": ["not read"] * 20,
        }
    )


@pytest.fixture(scope="module")
def history_path(tmp_path_factory: pytest.TempPathFactory, users: pa.Table, write_model: WriteModel) -> Path:
    """The bundle of a model that reads histories."""
    random = np.random.default_rng(2)
    log = users.take(pa.array(random.integers(0, 20, 60)))
    for name, values in (("now", 60.0), ("hour", 24.0)):
        log = log.append_column(name, pa.array((random.random(60) * values).round(2)))
    log = log.append_column("item_id", pa.array(random.integers(100, 110, 60)))
    return write_model(
        tmp_path_factory.mktemp("bundles") / "history", CONFIG, log.append_column("click", pa.array([0, 1] * 30))
    )


@pytest.fixture(scope="module")
def history_bundle(history_path: Path) -> ModelBundle:
    return ModelBundle.load(history_path)


@pytest.fixture(scope="module")
def plain(history_bundle: ModelBundle) -> Ranker:
    """Has no store."""
    return Ranker.load(history_bundle)


@pytest.fixture(scope="module", params=["in files", "in Redis"])
def store(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    history_bundle: ModelBundle,
    users: pa.Table,
) -> RowStore:
    if request.param == "in Redis":
        to = request.getfixturevalue("redis_of_all").url(prefix="users")
    else:
        to = str(tmp_path_factory.mktemp("stores") / "users")
    return write_store(to, users, history_bundle.encoder, "user")


@pytest.fixture(scope="module")
def ranker(history_bundle: ModelBundle, store: RowStore) -> Ranker:
    return Ranker.load(history_bundle, users=store)


def ask(ranker: Ranker, user: dict[str, Any]) -> RankResponse:
    return ranker.rank(RankRequest.parse({"user": user, "context": {"hour": 12}, **CANDIDATES}))


def row_of(users: pa.Table, user: int) -> dict[str, Any]:
    """A user as a request without a store gives it."""
    row: dict[str, Any] = users.drop_columns(["notes"]).slice(user - 1, 1).to_pylist()[0]
    return row


@pytest.mark.parametrize("user", [1, 3, 4, 9, 20])
def test_id_alone_ranks_as_all_columns(ranker: Ranker, plain: Ranker, users: pa.Table, user: int) -> None:
    found, expected = ask(ranker, {"user_id": user, "now": 55}), ask(plain, {**row_of(users, user), "now": 55})

    assert found.items == expected.items
    assert found.warnings == expected.warnings
    assert found.items != ask(plain, {"user_id": user, "now": 55}).items


def test_id_may_be_text_and_candidates_columns(ranker: Ranker, plain: Ranker, users: pa.Table) -> None:
    options = RankOptions.model_validate({"user": {"user_id": "9"}})
    request = ColumnRequest(options, {"item_id": pa.array(CANDIDATES["candidates"]["item_id"])}, num_candidates=4)

    (found,) = ranker.rank_columns([ranker.decode(request)])

    expected = plain.rank(RankRequest.parse({"user": row_of(users, 9), **CANDIDATES}))
    assert not isinstance(found, RequestError)
    assert found.items() == expected.items
    assert found.look_ups == {"users": LookUps(num_hits=1)}


@pytest.mark.parametrize(
    "given",
    [
        {"age": 33},
        {"tags": "t0"},
        {"tags": ""},
        {"seen_items": [101], "seen_what": ["buy"], "seen_at": [5]},
        {"seen_items": [], "seen_what": [], "seen_at": []},
    ],
)
def test_what_a_request_gives_wins_over_the_store(
    ranker: Ranker, plain: Ranker, users: pa.Table, given: dict[str, Any]
) -> None:
    found, expected = ask(ranker, {"user_id": 7, **given}), ask(plain, {**row_of(users, 7), **given})

    assert found.items == expected.items
    assert found.items != ask(ranker, {"user_id": 7}).items


def test_null_is_nothing_given(ranker: Ranker) -> None:
    assert ask(ranker, {"user_id": 7, "age": None, "seen_items": None}).items == ask(ranker, {"user_id": 7}).items


def test_lists_of_a_history_are_not_mixed(ranker: Ranker) -> None:
    with pytest.raises(RequestError, match="user: columns of feature 'history' hold lists of unequal lengths in row 0"):
        ask(ranker, {"user_id": 7, "seen_items": [101, 102]})


def test_unknown_user_ranks_as_without_a_store_and_is_told(ranker: Ranker, plain: Ranker) -> None:
    found, expected = ask(ranker, {"user_id": 999}), ask(plain, {"user_id": 999})

    assert found.items == expected.items
    told, *others = found.warnings
    assert (told.feature, told.code, told.count) == ("user_id", "not_in_store", 1)
    assert others == expected.warnings


def test_request_without_a_user_is_ranked_as_it_is(ranker: Ranker, plain: Ranker) -> None:
    assert ask(ranker, {"age": 40}).items == ask(plain, {"age": 40}).items
    assert ask(ranker, {"age": 40}).warnings == ask(plain, {"age": 40}).warnings


def test_id_that_does_not_fit_is_named(ranker: Ranker) -> None:
    with pytest.raises(RequestError, match=r"user\.user_id: expected an integer"):
        ask(ranker, {"user_id": "seven"})


def test_items_and_users_may_both_be_looked_up(
    tmp_path: Path, history_bundle: ModelBundle, store: RowStore, plain: Ranker, users: pa.Table
) -> None:
    log_items = pa.table({"item_id": [100, 103], "title": ["a", "b"]})
    with pytest.raises(SchemaError, match=r"none of the columns that the model reads of an item is there \(item_id\)"):
        ArrowStore.build(tmp_path / "items", log_items, history_bundle.encoder)

    ranker = Ranker.load(history_bundle).with_stores(users=store)

    assert ask(ranker, {"user_id": 2}).items == ask(plain, row_of(users, 2)).items


def test_users_may_be_known_by_a_column_that_the_model_does_not_read(
    tmp_path: Path, write_model: WriteModel, users: pa.Table
) -> None:
    features = {name: one for name, one in CONFIG["inputs"]["features"].items() if name in ("age", "item_id")}
    config = {**CONFIG, "inputs": {**CONFIG["inputs"], "features": features}}
    log = pa.table({"age": [20.0, 30.0], "item_id": [100, 101], "click": [0, 1]})
    bundle = ModelBundle.load(write_model(tmp_path / "young", config, log))
    with pytest.raises(SchemaError, match="the model has no id of a user; name the column of ids with --by COLUMN"):
        write_store(str(tmp_path / "users"), users, bundle.encoder, "user")
    keyed = users.rename_columns({"user_id": "account"})

    store = write_store(str(tmp_path / "users"), keyed, bundle.encoder, "user", column="account")
    ranker = Ranker.load(bundle, users=store, strict_fields=True)

    assert ask_ages(ranker, {"account": 5}) == ask_ages(Ranker.load(bundle), {"age": 25})
    assert str(ranker.request_columns["user"]["account"].type) == "int64"


def ask_ages(ranker: Ranker, user: dict[str, Any]) -> list[float | None]:
    request = RankRequest.parse({"user": user, "candidates": {"item_id": [100, 101]}})
    return [item.score for item in ranker.rank(request).items]


def test_table_that_is_none_of_users_is_refused(tmp_path: Path, history_bundle: ModelBundle, users: pa.Table) -> None:
    ids = users["user_id"].to_pylist()
    what = users["seen_what"].to_pylist()

    def with_column(name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
        return users.set_column(users.column_names.index(name), name, pa.array(values, kind))

    cases: list[tuple[pa.Table, type[Exception], str]] = [
        (users.slice(0, 0), DataError, "the table of users has no rows; give one row per user"),
        (with_column("user_id", [None, *ids[1:]]), DataError, "row 0: a user without an id; leave the row out"),
        (with_column("user_id", [2, *ids[1:]]), DataError, "rows 0 and 1 are of one user, 2; keep one row per user"),
        (with_column("user_id", [[user] for user in ids]), SchemaError, "expected one id per row, found list"),
        (users.select(["user_id", "notes"]), SchemaError, "the model reads of a user is there"),
        (with_column("seen_what", [["view"], *what[1:]]), DataError,
         "of the rows from 0 on, counted from there: columns of feature 'history' hold lists of unequal lengths in"),
        (users.drop_columns(["seen_at"]), DataError, "hold lists of unequal lengths in row 0: 2 in 'seen_items', 0 in"),
    ]  # fmt: skip

    for rows, kind, message in cases:
        with pytest.raises(kind, match=message):
            write_store(str(tmp_path / "users"), rows, history_bundle.encoder, "user")
    assert list(tmp_path.iterdir()) == []


def test_store_of_another_model_or_side_is_refused(
    tmp_path: Path, history_bundle: ModelBundle, bundle: ModelBundle, users: pa.Table
) -> None:
    shop_users = pa.table({"user_id": ["u1", "u2"], "tags": [["red"], ["silk"]]})
    shop = ArrowStore.build(tmp_path / "shop", shop_users, bundle.encoder, "user")
    keyed = ArrowStore.build(
        tmp_path / "keyed",
        users.select(["user_id", "seen_items", "seen_what", "seen_at"]),
        history_bundle.encoder,
        "user",
    )

    with pytest.raises(
        DataError, match="its column 'user_id' is of type string, the model reads int64; build it again"
    ):
        Ranker.load(history_bundle, users=shop)
    with pytest.raises(DataError, match=r"type int64, the model reads string"):
        Ranker.load(bundle, users=keyed)
    with pytest.raises(
        DataError, match="shop: cannot be read: it is a store of users; build it again with recmoe items"
    ):
        ArrowStore.open(tmp_path / "shop", "item")


def test_store_without_a_column_of_the_model_is_refused(
    tmp_path: Path, write_model: WriteModel, users: pa.Table, history_bundle: ModelBundle
) -> None:
    features = {name: CONFIG["inputs"]["features"][name] for name in ("user_id", "item_id")}
    log = pa.table({"user_id": [1, 2], "item_id": [100, 101], "click": [0, 1]})
    config = {**CONFIG, "inputs": {**CONFIG["inputs"], "features": features}}
    small = ModelBundle.load(write_model(tmp_path / "small", config, log))
    store = ArrowStore.build(tmp_path / "users", users, history_bundle.encoder, "user")

    with pytest.raises(DataError, match=r"holds no column that the model reads of a user \(user_id\); build it again"):
        Ranker.load(small, users=store)


def test_store_whose_histories_another_model_cannot_read_is_refused(
    tmp_path: Path, write_model: WriteModel, users: pa.Table, history_bundle: ModelBundle
) -> None:
    features = {
        **CONFIG["inputs"]["features"],
        "history": {
            "kind": "sequence",
            "columns": {"item": {"column": "seen_items"}, "page": {"column": "seen_pages"}},
        },
    }
    config = {**CONFIG, "inputs": {**CONFIG["inputs"], "features": features}}
    log = users.append_column("seen_pages", users["seen_items"]).append_column("item_id", users["user_id"])
    log = log.append_column("hour", users["age"]).append_column("click", pa.array([0, 1] * 10))
    other = ModelBundle.load(write_model(tmp_path / "other", config, log))
    store = ArrowStore.build(tmp_path / "users", users, history_bundle.encoder, "user")

    with pytest.raises(
        DataError, match=r"users: columns of feature 'history' hold lists of unequal lengths .* users build"
    ):
        Ranker.load(other, users=store)


def test_rows_that_are_encoded_otherwise_are_refused(
    store: RowStore, history_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.ranking.items.users.same", lambda *_: False)

    with pytest.raises(
        DataError, match="its rows are encoded otherwise than in training; build it again with recmoe user"
    ):
        Ranker.load(history_bundle, users=store)
