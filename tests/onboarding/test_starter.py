"""starter_config on logs that nobody prepared: what each column is taken for, and splits that train as they stand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
import pytest

from recmoe.data.csv_config import CsvConfig
from recmoe.errors import DataError
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.kinds import IdFeature, IdListFeature, NumericFeature
from recmoe.onboarding.starter import StarterConfig, starter_config
from recmoe.tasks.spaces import label_columns

NUM_ROWS = 4000


def shop_log(num_rows: int = NUM_ROWS) -> pa.Table:
    """Lists of five, six outcomes (a chain of three, two rare ones, one on its own), lists as text, a time."""
    rng = np.random.default_rng(0)
    request = np.arange(num_rows) // 5
    user = rng.integers(0, 80, num_rows // 5)[request]
    item = rng.integers(0, 60, num_rows)
    clicked = rng.random(num_rows) < 0.4
    in_cart = clicked & (rng.random(num_rows) < 0.3)
    bought = in_cart & (rng.random(num_rows) < 0.5)
    seconds = np.round(rng.lognormal(2.0, 1.0, num_rows), 2)
    return pa.table(
        {
            "event_time": pa.array((1_750_000_000 + request * 60) * 1_000_000, pa.timestamp("us")),
            "row_id": np.arange(num_rows),
            "request_id": [f"r{number}" for number in request],
            "user_id": user,
            "user_city": [("Rome", "Lima", "Oslo")[number % 3] for number in user],
            "device_type": [("phone", "desktop")[number % 2] for number in request],
            "item_id": item,
            "price": np.round(np.exp(item / 20) + 1, 2),
            "tags": ["|".join(f"t{(number + step) % 9}" for step in range(number % 4 + 1)) for number in item],
            "title": [
                f"a very good thing of kind {n} and of make {n * 7919}" for n in rng.integers(0, 10**6, num_rows)
            ],
            "country": ["IT"] * num_rows,
            "is_new": (item % 2).astype(np.int64),
            "past_clicks": rng.poisson(2.0, num_rows),
            "clicked": clicked.astype(np.int64),
            "added_to_cart": in_cart.astype(np.int64),
            "purchased": bought.astype(np.int64),
            "liked": (rng.random(num_rows) < 0.2).astype(np.int64),
            "shared": (rng.random(num_rows) < 0.006).astype(np.int64),
            "reported": (rng.random(num_rows) < 0.004).astype(np.int64),
            "time_on_page": pa.array(seconds, mask=~clicked),
            "order_code": pa.array([f"o{n}" for n in range(num_rows)], mask=~bought),
        }
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> StarterConfig:
    folder = tmp_path_factory.mktemp("shop")
    pc_csv.write_csv(shop_log(), folder / "shop log.csv")
    return starter_config([folder / "shop log.csv"], output_dir=folder / "out")


def loaded(starter: StarterConfig) -> ExperimentConfig:
    assert starter.path is not None
    return load_experiment(starter.path)


def split(starter: StarterConfig, name: str) -> pa.Table:
    assert starter.path is not None
    return pq.read_table(starter.path.parent / f"{name}.parquet")


def start(folder: Path, table: pa.Table) -> StarterConfig:
    pq.write_table(table, folder / "log.parquet")
    return starter_config([folder / "log.parquet"], output_dir=folder / "out")


def test_chain_of_outcomes_becomes_tasks_with_spaces(shop: StarterConfig) -> None:
    labels = {label.column: label.space for label in shop.roles.labels if label.kind == "binary"}

    assert labels == {
        "clicked": None,
        "added_to_cart": "clicked",
        "purchased": "added_to_cart",
        "liked": None,
        "shared": None,
        "reported": None,
    }
    products = {name: task.of for name, task in loaded(shop).tasks.items() if task.kind == "product"}
    assert products["clicked_and_added_to_cart_and_purchased"] == ("clicked", "added_to_cart", "purchased")


def test_rare_label_is_noted_with_its_rate(shop: StarterConfig) -> None:
    (line,) = (line for line in shop.text.splitlines() if line.startswith("  shared:"))

    assert "% of all rows; rare: " in line
    assert "rare" not in next(line for line in shop.text.splitlines() if line.startswith("  liked:"))


def test_number_filled_only_after_a_click_is_a_regression_there(shop: StarterConfig) -> None:
    task = loaded(shop).tasks["time_on_page"]

    assert (task.kind, task.space, task.transform) == ("regression", "clicked", "log1p")


def test_text_filled_only_after_an_outcome_is_left_out(shop: StarterConfig) -> None:
    assert shop.roles.left_out["order_code"] == "filled only where purchased is 1: not known when ranking"


def test_outcome_of_unknown_name_is_a_task_if_it_is_a_property_of_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = shop_log().append_column("zapped", pa.array((rng.random(NUM_ROWS) < 0.004).astype(np.int64)))
    table = table.append_column("sponsored", pc.equal(table["item_id"], 3))
    table = table.append_column("is_top", pa.array((rng.random(NUM_ROWS) < 0.2).astype(np.int64)))

    starter = start(tmp_path, table)

    assert "zapped" in {label.column for label in starter.roles.labels}
    (line,) = (line for line in starter.text.splitlines() if line.startswith("  zapped:"))
    assert line.endswith("; known before the list is shown? then make it a feature")
    assert {"sponsored", "is_top", "is_new"} <= {feature.column for feature in starter.roles.features}


def test_index_of_a_data_frame_is_left_out(tmp_path: Path) -> None:
    table = shop_log().append_column("__index_level_0__", pa.array(np.arange(NUM_ROWS) % 1000))

    assert "index" in start(tmp_path, table).roles.left_out["__index_level_0__"]


def test_items_seen_before_are_of_the_user_and_similar_items_of_the_item(tmp_path: Path) -> None:
    table = shop_log()
    items = table["item_id"].to_numpy()
    recent = ["|".join(str(item) for item in items[max(row - 3, 0) : row]) for row in range(NUM_ROWS)]
    similar = [f"{(item + 1) % 30}|{item * item % 29}" for item in items]
    table = table.append_column("recent", pa.array(recent)).append_column("similar", pa.array(similar))

    starter = start(tmp_path, table)

    features = loaded(starter).inputs.features
    assert {name: (features[name].side, features[name].table) for name in ("recent", "similar")} == {
        "recent": ("user", "item_id"),
        "similar": ("item", "item_id"),
    }
    notes = {feature.column: feature.note for feature in starter.roles.features}
    assert notes["recent"] == "in the order of time, the newest last? then kind: sequence"
    assert notes["similar"] == ""


def test_columns_that_teach_nothing_are_left_out_with_a_reason(shop: StarterConfig) -> None:
    reasons = shop.roles.left_out

    assert reasons["country"] == "the same value in every row"
    assert "nearly every row" in reasons["row_id"]
    assert "text" in reasons["title"] or "nearly every row" in reasons["title"]
    assert reasons["request_id"] == "names a list of rows: never seen again when ranking"
    for column, reason in reasons.items():
        assert f"  #   {column}: {reason}" in shop.text


def test_features_have_kinds_and_sides(shop: StarterConfig) -> None:
    features = loaded(shop).inputs.features

    assert {name: (feature.kind, feature.side) for name, feature in features.items()} == {
        "user_id": ("id", "user"),
        "user_city": ("id", "user"),
        "device_type": ("id", "context"),
        "item_id": ("id", "item"),
        "price": ("numeric", "item"),
        "tags": ("id_list", "item"),
        "is_new": ("id", "item"),
        "past_clicks": ("numeric", "item"),
    }
    tags, price = features["tags"], features["price"]
    assert isinstance(tags, IdListFeature)
    assert tags.separator == "|"
    assert isinstance(price, NumericFeature)
    assert price.forms == ("value", "bucket")


def test_group_item_and_name_are_found(shop: StarterConfig) -> None:
    config = loaded(shop)

    assert (config.inputs.group, config.inputs.item) == ("request_id", "item_id")
    assert config.name == "out"
    assert config.ranking.default == "clicked_and_added_to_cart_and_purchased"


def test_split_is_by_time_and_complete(shop: StarterConfig) -> None:
    train, validation, test = (split(shop, name) for name in ("train", "validation", "test"))

    assert shop.num_rows == {"train": train.num_rows, "validation": validation.num_rows, "test": test.num_rows}
    assert train.num_rows + validation.num_rows + test.num_rows == NUM_ROWS
    assert abs(test.num_rows - 400) <= 5
    assert pc.max(train["event_time"]).as_py() < pc.min(validation["event_time"]).as_py()
    assert pc.max(validation["event_time"]).as_py() < pc.min(test["event_time"]).as_py()
    assert "by event_time: the last rows are the test" in shop.text


def test_encoder_reads_the_splits_with_the_written_schema(shop: StarterConfig) -> None:
    config = loaded(shop)
    labels = label_columns(config.tasks)

    encoder = FeatureEncoder.fit(config.inputs, [split(shop, "train")], labels)
    batch = encoder.encode(split(shop, "test"))

    assert batch.num_rows == shop.num_rows["test"]
    assert batch.labels_BL.shape == (shop.num_rows["test"], len(labels))


def test_nothing_is_left_beside_config_and_splits(shop: StarterConfig) -> None:
    assert shop.path is not None

    names = sorted(path.name for path in shop.path.parent.iterdir())

    assert names == ["config.yaml", "test.parquet", "train.parquet", "validation.parquet"]


def test_without_a_time_whole_lists_are_split_by_seed(tmp_path: Path) -> None:
    table = shop_log().drop_columns(["event_time"])
    pq.write_table(table, tmp_path / "log.parquet")

    starters = [
        starter_config([tmp_path / "log.parquet"], output_dir=tmp_path / name, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]

    requests = [set(split(starters[0], name)["request_id"].to_pylist()) for name in ("train", "validation", "test")]
    assert not requests[0] & requests[1] | requests[0] & requests[2] | requests[1] & requests[2]
    assert sum(map(len, requests)) == NUM_ROWS // 5
    assert abs(starters[0].num_rows["test"] - 400) < 120
    assert split(starters[0], "test").equals(split(starters[1], "test"))
    assert not split(starters[0], "test").equals(split(starters[2], "test"))


def test_without_time_and_lists_rows_are_split(tmp_path: Path) -> None:
    starter = start(tmp_path, shop_log().drop_columns(["event_time", "request_id"]))

    assert "Split by rows, at random" in starter.text
    assert starter.roles.group == "user_id"
    assert set(split(starter, "test")["user_id"].to_pylist()) <= set(split(starter, "train")["user_id"].to_pylist())


def test_time_of_three_days_is_too_coarse_to_split_by(tmp_path: Path) -> None:
    table = shop_log()
    days = pa.array(["2025-06-01", "2025-06-02", "2025-06-03"]).take(pa.array(np.arange(NUM_ROWS) * 3 // NUM_ROWS))
    coarse = table.set_column(0, "day", days.cast(pa.date32()))

    starter = start(tmp_path, coarse)

    assert starter.roles.time == "day"
    assert "Split by request_id, at random" in starter.text


@pytest.mark.parametrize("unit", ["seconds", "text"])
def test_clock_numbers_and_texts_are_times(tmp_path: Path, unit: str) -> None:
    table = shop_log()
    times = table["event_time"].cast(pa.timestamp("s"))
    written = times.cast(pa.int64()) if unit == "seconds" else pc.strftime(times, format="%Y-%m-%d %H:%M:%S")

    starter = start(tmp_path, table.set_column(0, "ts", written))

    assert starter.roles.time == "ts"
    assert abs(starter.num_rows["test"] - 400) <= 5


def test_text_that_is_a_time_only_at_first_is_an_error(tmp_path: Path) -> None:
    # Enough rows that the sample holds only the head of each run of rows.
    num_rows = 400_000
    hours = np.arange(num_rows) * 24 // num_rows
    times = np.where(np.arange(num_rows) == 1000, "yesterday", [f"2025-06-01 {hour:02}:00:00" for hour in hours])
    table = pa.table(
        {"ts": times, "user_id": np.arange(num_rows) % 7, "x": np.arange(num_rows) % 5 / 3, "click": [0, 1] * 200_000}
    )

    with pytest.raises(DataError, match=r"column ts holds times as text, but not in every row: .*yesterday"):
        start(tmp_path, table)


def test_list_columns_share_the_table_of_the_ids_they_hold(tmp_path: Path) -> None:
    table = shop_log()
    seen = pa.array([[number, (number + 1) % 60] for number in table["item_id"].to_pylist()])
    last = pa.array([float(number) if number % 3 else None for number in table["item_id"].to_pylist()])

    starter = start(tmp_path, table.append_column("seen_items", seen).append_column("last_item", last))

    features = loaded(starter).inputs.features
    seen_items, last_item = features["seen_items"], features["last_item"]
    assert isinstance(seen_items, IdListFeature)
    assert isinstance(last_item, IdFeature)
    assert (seen_items.table, last_item.table) == ("item_id", "item_id")


def test_lists_with_brackets_and_vectors_are_left_out(tmp_path: Path) -> None:
    table = shop_log()
    bracketed = pa.array([f"[{number}, {number + 1}]" for number in table["item_id"].to_pylist()])
    vectors = pa.array([[0.1, 0.2]] * NUM_ROWS)

    starter = start(tmp_path, table.append_column("neighbours", bracketed).append_column("vector", vectors))

    assert "write them as a|b|c" in starter.roles.left_out["neighbours"]
    assert "vectors cannot" in starter.roles.left_out["vector"]


def test_copy_of_a_label_is_left_out(tmp_path: Path) -> None:
    table = shop_log()

    starter = start(tmp_path, table.append_column("is_click", table["clicked"]))

    assert starter.roles.left_out["is_click"] == "equal to clicked in every row"


def test_single_flag_without_a_telling_name_is_the_label(tmp_path: Path) -> None:
    table = (
        shop_log().select(["user_id", "item_id", "price", "liked"]).rename_columns(["user", "item", "price", "flag"])
    )

    starter = start(tmp_path, table)

    assert [label.column for label in starter.roles.labels] == ["flag"]
    assert loaded(starter).training.early_stopping is not None


def test_strange_column_names_are_kept_as_columns(tmp_path: Path) -> None:
    table = shop_log().select(["user_id", "price", "user_city", "clicked"])
    strange = table.rename_columns(["user id", "price (€)", "yes", "was.clicked"])

    config = loaded(start(tmp_path, strange))

    assert {name: feature.column or name for name, feature in config.inputs.features.items()} == {
        "user_id": "user id",
        "price": "price (€)",
        "yes": "yes",
    }
    assert config.tasks["was_clicked"].label == "was.clicked"


def test_only_looking_writes_nothing(tmp_path: Path) -> None:
    pq.write_table(shop_log(), tmp_path / "log.parquet")

    starter = starter_config([tmp_path / "log.parquet"], output_dir=None)

    assert starter.path is None
    assert starter.text.startswith("# Starter config")
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_config_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")

    with pytest.raises(DataError, match=r"config\.yaml exists already; remove it or choose another folder"):
        starter_config([tmp_path / "log.parquet"], output_dir=tmp_path)


def test_no_files_are_refused() -> None:
    with pytest.raises(DataError, match="no files are given"):
        starter_config([], output_dir=None)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        starter_config([tmp_path / "nowhere.csv"], output_dir=None)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"40 rows are too few .* at least 100 are needed"):
        start(tmp_path, shop_log(40))


def test_keys_that_say_how_to_read_go_into_the_config(tmp_path: Path) -> None:
    text = "user_id\tprice\tnote\tclick\n" + "".join(f"ü{row % 9}\t1,5\tvoid\t{row % 2}\n" for row in range(200))
    (tmp_path / "log.csv").write_text(text, encoding="windows-1252")
    keys = ["data.csv={encoding: windows-1252, null_values: [void], separator: '\t'}", "data.on_error=skip"]

    starter = starter_config([tmp_path / "log.csv"], reading=keys, output_dir=tmp_path / "out")

    data = loaded(starter).data
    assert data.csv == CsvConfig(encoding="windows-1252", null_values=("void",), separator="\t")
    assert data.on_error == "skip"


def test_log_without_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column of the log can be a label: .* found user_id \(int64\), price"):
        start(tmp_path, shop_log().select(["user_id", "price"]))


def test_log_without_a_feature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column of the log can be a feature"):
        start(tmp_path, shop_log().select(["country", "clicked"]))
