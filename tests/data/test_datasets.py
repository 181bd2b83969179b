"""Importers of public data sets, on small files of the published form; on the real ones where RECMOE_DATA has them."""

import bz2
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recmoe.data.datasets import IMPORTERS, import_dataset
from recmoe.data.datasets.sessions import ItemEvents
from recmoe.data.datasets.trivago import COLUMNS as TRIVAGO_COLUMNS
from recmoe.errors import DataError
from recmoe.experiment import load_experiment
from recmoe.tasks.spaces import label_columns

CENSUS_ROW = (
    "58, Private, 4, 34, Some college but no degree, 0, Not in universe, {marital}, Construction, Sales, White, NA,"
    " Male, No, Not in universe, Full-time schedules, {gains}, 0, 0, Head of household, South, Arkansas, Householder,"
    " Householder, 1053.55, MSA to MSA, Same county, Same county, No, Yes, 1, Not in universe, ?, United-States,"
    " United-States, Native- Born in the United States, 0, Not in universe, 2, 52, 94, {income}\n"
)


def read(folder: Path, split: str) -> pa.Table:
    return pq.read_table(folder / f"{split}.parquet")


def census_rows(num_rows: int) -> str:
    return "".join(
        CENSUS_ROW.format(
            marital="Never married" if row % 2 else "Widowed", gains=row, income="50000+." if row % 3 else "- 50000."
        )
        for row in range(num_rows)
    )


def write_census(folder: Path) -> None:
    (folder / "census-income.data.bz2").write_bytes(bz2.compress(census_rows(6).encode()))
    (folder / "census-income.test.gz").write_bytes(gzip.compress(census_rows(10).encode()))


def write_hillstrom(folder: Path, *, conversion: int = 1) -> None:
    rows = pa.table(
        {
            "recency": list(range(100)),
            "history_segment": ["1) $0 - $100"] * 100,
            "history": [29.99] * 100,
            "mens": [1] * 100,
            "womens": [0] * 100,
            "zip_code": ["Urban"] * 100,
            "newbie": [0] * 100,
            "channel": ["Web"] * 100,
            "segment": ["No E-Mail"] * 100,
            "visit": [1] * 10 + [0] * 90,
            "conversion": [1] * 5 + [0] * 94 + [conversion - 1],
            "spend": [20.0] * 5 + [0.0] * 95,
        }
    )
    pq.write_table(rows, folder / "hillstrom.parquet")


def event(
    session: str, time: int, step: int, action: str, reference: str, shown: str = "", prices: str = ""
) -> dict[str, object]:
    values = ("u", session, time, step, action, reference, "BR", "Rio, Brazil", "mobile")
    return dict(
        zip(TRIVAGO_COLUMNS, (*values, "Hotel|5 Star" if shown else None, shown or None, prices or None), strict=True)
    )


def write_trivago(folder: Path, *, prices: str = "30|20|20") -> None:
    """Ten sessions of one list; the first has a history: items 9 (twice), 7, then the list 7 8 9, then item 8 again."""
    events = [
        event("s0", 100, 1, "interaction item image", "9"),
        event("s0", 105, 2, "interaction item image", "9"),
        event("s0", 110, 3, "clickout item", "7", "7|5", "1|2"),
        event("s0", 120, 4, "filter selection", "Hotel"),
        event("s0", 130, 5, "clickout item", "9", "7|8|9", prices),
        event("s0", 140, 6, "interaction item info", "8"),
    ]
    events += [event(f"s{n}", 1000 * n, 1, "clickout item", "5", "5|6", "10|20") for n in range(1, 10)]
    events += [event("s9", 9999, 2, "clickout item", "4", "5|6", "10|20")]
    pq.write_table(pa.Table.from_pylist(events), folder / "trivago_val_100k.parquet")


def test_census_drops_what_tells_the_label_and_halves_the_test(tmp_path: Path) -> None:
    write_census(tmp_path)

    config = import_dataset("census", tmp_path, tmp_path / "out", seed=0)

    train = read(tmp_path / "out", "train")
    assert config == tmp_path / "out" / "config.yaml"
    assert "marital_stat" not in train.column_names
    assert "instance_weight" not in train.column_names
    assert train["income"].to_pylist() == [0, 1, 1, 0, 1, 1]
    assert train["never_married"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert train["capital_gains"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert train["hispanic_origin"].to_pylist() == ["NA"] * 6
    assert train["father_country"].to_pylist() == ["?"] * 6
    people = [set(read(tmp_path / "out", split)["person_id"].to_pylist()) for split in ("validation", "test")]
    assert [len(part) for part in people] == [5, 5]
    assert people[0] | people[1] == set(range(6, 16))


def test_census_split_depends_on_the_seed_only(tmp_path: Path) -> None:
    write_census(tmp_path)

    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_dataset("census", tmp_path, tmp_path / name, seed=seed)

    assert read(tmp_path / "a", "test").equals(read(tmp_path / "b", "test"))
    assert not read(tmp_path / "a", "test").equals(read(tmp_path / "c", "test"))


def test_hillstrom_is_split_by_seed_with_its_labels(tmp_path: Path) -> None:
    write_hillstrom(tmp_path)

    import_dataset("hillstrom", tmp_path / "hillstrom.parquet", tmp_path / "out", seed=0)

    tables = [read(tmp_path / "out", split) for split in ("train", "validation", "test")]
    assert [table.num_rows for table in tables] == [80, 10, 10]
    everybody = pa.concat_tables(tables)
    assert sorted(everybody["customer_id"].to_pylist()) == list(range(100))
    assert [sum(everybody[name].to_pylist()) for name in ("visit", "conversion", "spend")] == [10, 5, 100.0]


def test_every_config_loads(tmp_path: Path) -> None:
    write_census(tmp_path)
    write_hillstrom(tmp_path)
    write_trivago(tmp_path)

    configs = {name: load_experiment(import_dataset(name, tmp_path, tmp_path / name)) for name in IMPORTERS}

    assert {name: config.name for name, config in configs.items()} == {name: name for name in IMPORTERS}
    for name, config in configs.items():
        columns = read(tmp_path / name, "train").column_names
        assert {feature.column or key for key, feature in config.inputs.features.items()} <= set(columns)
        assert {label.column for label in label_columns(config.tasks)} <= set(columns)
        assert set(config.evaluation.slices) <= set(columns)


def test_trivago_features_look_back_and_labels_ahead(tmp_path: Path) -> None:
    write_trivago(tmp_path)

    import_dataset("trivago", tmp_path, tmp_path / "out", seed=0)

    train = read(tmp_path / "out", "train")
    rows = train.filter(pc.and_(pc.equal(train["list_length"], 3), pc.less(train["timestamp"], 1000))).to_pydict()
    assert rows["item_id"] == [7, 8, 9]
    assert rows["position"] == [1, 2, 3]
    assert rows["price_rank"] == [3, 1, 2]
    assert rows["num_interactions"] == [1, 0, 2]
    assert rows["num_clickouts"] == [1, 0, 0]
    assert rows["s_since_interaction"] == [20, None, 25]
    assert rows["is_last_item"] == [1, 0, 0]
    assert rows["offset_from_last"] == [0, 1, 2]
    assert rows["session_items"] == [[9, 7]] * 3
    assert rows["history_items"] == [[9, 9, 7]] * 3
    assert rows["history_actions"] == [["interaction item image"] * 2 + ["clickout item"]] * 3
    assert rows["history_times"] == [[100, 105, 110]] * 3
    assert rows["click"] == [0, 0, 1]
    assert rows["interaction"] == [0, 1, 0]


def test_trivago_sessions_stay_whole_and_the_last_are_the_test(tmp_path: Path) -> None:
    write_trivago(tmp_path)

    import_dataset("trivago", tmp_path, tmp_path / "out", seed=0)

    times = {
        split: set(read(tmp_path / "out", split)["timestamp"].to_pylist()) for split in ("train", "validation", "test")
    }
    assert max(times["train"]) < min(times["validation"]) <= max(times["validation"]) < min(times["test"])
    assert times["test"] == {8000, 9000}


def test_trivago_list_without_its_click_is_left_out(tmp_path: Path) -> None:
    write_trivago(tmp_path)

    import_dataset("trivago", tmp_path, tmp_path / "out", seed=0)

    test = read(tmp_path / "out", "test")
    assert 9999 not in test["timestamp"].to_pylist()
    assert sum(test["click"].to_pylist()) == len(set(test["list_id"].to_pylist()))


def test_trivago_baselines_are_those_of_the_test_lists(tmp_path: Path) -> None:
    write_trivago(tmp_path)

    import_dataset("trivago", tmp_path, tmp_path / "out", seed=0)

    baselines = json.loads((tmp_path / "out" / "truth.json").read_text())["baselines"]
    assert baselines == {
        "given order": {"click.ndcg@10[all]": 1.0, "click.mrr[all]": 1.0},
        "price order": {"click.ndcg@10[all]": 1.0, "click.mrr[all]": 1.0},
    }


def test_history_keeps_the_last_items_and_joins_repeats() -> None:
    events = ItemEvents(np.array([0, 0, 0, 0, 1]), np.array([1, 2, 3, 4, 1]), np.array([7, 7, 8, 9, 5]))

    offsets, rows = events.history(np.array([0, 0, 1]), np.array([5, 3, 1]), max_length=2)

    assert offsets.tolist() == [0, 2, 3, 3]
    assert rows.tolist() == [2, 3, 0]
    assert events.item_N[rows].tolist() == [8, 9, 7]


def test_history_with_repeats_keeps_every_event() -> None:
    events = ItemEvents(np.array([0, 0, 0, 0, 1]), np.array([1, 2, 3, 4, 1]), np.array([7, 7, 8, 9, 5]))

    offsets, rows = events.history(np.array([0, 0, 1]), np.array([5, 3, 1]), max_length=3, repeats=True)

    assert offsets.tolist() == [0, 3, 5, 5]
    assert rows.tolist() == [1, 2, 3, 0, 1]


@pytest.mark.parametrize("name", sorted(IMPORTERS))
def test_missing_source_says_what_is_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        DataError, match=r"nowhere does not exist; expected the folder that holds .*(census|hillstrom|trivago)"
    ):
        import_dataset(name, tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("name", sorted(IMPORTERS))
def test_folder_without_the_file_says_what_was_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("")

    with pytest.raises(DataError, match=r"holds no .*; found notes\.txt"):
        import_dataset(name, tmp_path, tmp_path / "out")


def test_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set is called movielens; known are census, hillstrom, trivago"):
        import_dataset("movielens", tmp_path, tmp_path / "out")


def test_census_with_another_number_of_columns_is_refused(tmp_path: Path) -> None:
    write_census(tmp_path)
    (tmp_path / "census-income.data.bz2").write_bytes(bz2.compress(b"1, 2, 3\n"))

    with pytest.raises(
        DataError, match=r"census-income\.data\.bz2 is not the expected file: 42 columns without a header"
    ):
        import_dataset("census", tmp_path, tmp_path / "out")


def test_census_with_other_classes_is_refused(tmp_path: Path) -> None:
    write_census(tmp_path)
    (tmp_path / "census-income.data.bz2").write_bytes(bz2.compress(census_rows(2).replace("50000.", "<=50K").encode()))

    with pytest.raises(DataError, match=r"the last column must be one of - 50000\. 50000\+\."):
        import_dataset("census", tmp_path, tmp_path / "out")


def test_census_with_text_for_a_number_is_refused(tmp_path: Path) -> None:
    write_census(tmp_path)
    (tmp_path / "census-income.data.bz2").write_bytes(bz2.compress(census_rows(1).replace("58,", "old,").encode()))

    with pytest.raises(DataError, match="column age must hold integers"):
        import_dataset("census", tmp_path, tmp_path / "out")


def test_hillstrom_without_a_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"recency": [1], "visit": [0]}), tmp_path / "hillstrom.parquet")

    with pytest.raises(
        DataError, match=r"is not the expected file: no column history_segment, .*; found recency, visit"
    ):
        import_dataset("hillstrom", tmp_path, tmp_path / "out")


def test_hillstrom_with_a_conversion_without_a_visit_is_refused(tmp_path: Path) -> None:
    write_hillstrom(tmp_path, conversion=2)

    with pytest.raises(DataError, match="it has a conversion without a visit"):
        import_dataset("hillstrom", tmp_path, tmp_path / "out")


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hillstrom.parquet").write_bytes(b"not parquet at all")
    (tmp_path / "trivago_val_100k.parquet").write_bytes(b"not parquet at all")

    with pytest.raises(DataError, match=r"hillstrom\.parquet cannot be read"):
        import_dataset("hillstrom", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"trivago_val_100k\.parquet cannot be read"):
        import_dataset("trivago", tmp_path, tmp_path / "out")


def test_trivago_with_a_price_too_few_is_refused(tmp_path: Path) -> None:
    write_trivago(tmp_path, prices="30|20")

    with pytest.raises(DataError, match="impressions and prices must have the same number of entries"):
        import_dataset("trivago", tmp_path, tmp_path / "out")


def test_trivago_with_a_name_for_an_item_is_refused(tmp_path: Path) -> None:
    rows = [event("s0", 100, 1, "clickout item", "Hotel Rio", "1|2", "3|4")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "trivago_val_100k.parquet")

    with pytest.raises(
        DataError, match=r"items and prices of a 'clickout item' must be numbers joined by \| .*Hotel Rio"
    ):
        import_dataset("trivago", tmp_path, tmp_path / "out")


def test_trivago_without_lists_is_refused(tmp_path: Path) -> None:
    rows = [event("s0", 100, 1, "filter selection", "Hotel", "1", "2")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "trivago_val_100k.parquet")

    with pytest.raises(DataError, match="no event is a 'clickout item' with impressions"):
        import_dataset("trivago", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "folder", "num_rows"),
    [
        ("census", "census_income_kdd", (199_523, 49_881, 49_881)),
        ("hillstrom", "hillstrom", (51_200, 6_400, 6_400)),
        ("trivago", "trivago_recsys19", (249_940, 31_266, 31_308)),
    ],
)
def test_published_files_are_imported_whole(tmp_path: Path, name: str, folder: str, num_rows: tuple[int, ...]) -> None:
    if "RECMOE_DATA" not in os.environ:
        pytest.skip("RECMOE_DATA does not name the folder of the published data sets")

    import_dataset(name, Path(os.environ["RECMOE_DATA"]) / folder, tmp_path, seed=0)

    assert (
        tuple(pq.read_metadata(tmp_path / f"{s}.parquet").num_rows for s in ("train", "validation", "test")) == num_rows
    )
