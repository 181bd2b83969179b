"""trivago RecSys Challenge 2019: lists of hotels in a session of searching, one row per impression.

https://recsys.trivago.cloud/challenge. A "clickout item" event shows a list of up to 25 hotels with prices; its
``reference`` is the hotel clicked. Features use what the session did before that step; the rest is label.
"""

# L lists, I impressions (rows), N events on items

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from recmoe.data.datasets.sessions import ItemEvents
from recmoe.data.datasets.source import check_columns, find_source, place_config
from recmoe.data.splits import SPLITS, Split, write_splits
from recmoe.errors import DataError

ABOUT = "the session log of the RecSys Challenge 2019"
NAMES = ("trivago_val_100k.parquet", "trivago.parquet", "train.csv")
COLUMNS = (
    "user_id", "session_id", "timestamp", "step", "action_type", "reference", "platform", "city", "device",
    "current_filters", "impressions", "prices",
)  # fmt: skip
CLICKOUT = "clickout item"
NUM_ITEMS = 10
"""Different items in a row of ``session_items``."""
HISTORY_LENGTH = 30
"""Events of a session kept as its history."""
SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}

Ints = npt.NDArray[np.int64]


def import_trivago(source: Path, target: Path, seed: int) -> Path:  # noqa: ARG001 - the split is by time
    """Write splits by session and time, ``truth.json`` with the baselines, and the config; returns the config's path.

    Raises:
        DataError: the file is missing or is another file, or a list and its prices differ in length.
    """
    path = find_source(source, NAMES, about=ABOUT)
    log = _read(path)
    rows, session_start_I = _impressions(path, log)
    tables = _split(rows, session_start_I)
    write_splits(target, tables)
    truth = {"baselines": _baselines(tables["test"])}
    (target / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return place_config("trivago", target)


def _read(path: Path) -> pa.Table:
    """The log in the order of sessions and steps, with a number per session in place of its names."""
    try:
        log = pc_csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    check_columns(path, log.schema, COLUMNS)
    user_N = pc.dictionary_encode(pc.binary_join_element_wise(log["user_id"], log["session_id"], " "))
    session_N = user_N.combine_chunks().indices.to_numpy().astype(np.int64)
    order_N = np.lexsort((log["step"].to_numpy(), session_N))
    return log.append_column("session", pa.array(session_N)).take(pa.array(order_N))


def _impressions(path: Path, log: pa.Table) -> tuple[pa.Table, Ints]:
    """One row per hotel shown, and the second in which its session began."""
    lists = _lists(path, log)
    num_L = pc.list_value_length(lists["items"]).to_numpy().astype(np.int64)
    list_I = np.repeat(np.arange(lists.num_rows), num_L)
    position_I = np.arange(list_I.size) - np.repeat(np.cumsum(num_L) - num_L, num_L) + 1
    item_I = _flat(lists["items"])
    price_I = _flat(lists["price_list"])

    events, found = _item_events(log)
    time_N, is_click_N = found["timestamp"].to_numpy(), pc.equal(found["action_type"], CLICKOUT).to_numpy()
    session_I = lists["session"].to_numpy()[list_I]
    step_I = lists["step"].to_numpy()[list_I]
    time_I = lists["timestamp"].to_numpy()[list_I]
    clicks = ItemEvents(events.session_N[is_click_N], events.step_N[is_click_N], events.item_N[is_click_N])
    num_seen_I, last_I = events.before(session_I, step_I, item_I)
    num_clicked_I, _ = clicks.before(session_I, step_I, item_I)
    latest_I = events.latest(session_I, step_I)
    is_latest_I = (latest_I >= 0) & (events.item_N[latest_I] == item_I)

    columns = {
        "list_id": pa.array(list_I),
        "timestamp": pa.array(time_I),
        "item_id": pa.array(item_I),
        "position": pa.array(position_I),
        "price": pa.array(price_I),
        "price_rank": pa.array(_price_rank(list_I, price_I, num_L)),
        "price_ratio": pa.array(price_I / (np.bincount(list_I, price_I) / num_L)[list_I]),
        "list_length": pa.array(num_L[list_I]),
        "step": pa.array(step_I),
        "num_interactions": pa.array(num_seen_I),
        "num_clickouts": pa.array(num_clicked_I),
        "s_since_interaction": pa.array(time_I - time_N[last_I], mask=last_I < 0),
        "s_since_session_event": pa.array(time_I - time_N[latest_I], mask=latest_I < 0),
        "is_last_item": pa.array(is_latest_I.astype(np.int8)),
        "offset_from_last": _offset_from_last(list_I, position_I, is_latest_I),
        "last_item": pa.array(events.item_N[latest_I], mask=latest_I < 0),
        **_histories(events, found, lists, list_I),
    }
    for name in ("platform", "city", "device", "current_filters"):
        columns[name] = lists[name].combine_chunks().take(pa.array(list_I))
    columns["click"] = pa.array((item_I == lists["clicked"].to_numpy()[list_I]).astype(np.int8))
    columns["interaction"] = pa.array((events.after(session_I, step_I, item_I) > 0).astype(np.int8))

    start = pd.Series(log["timestamp"].to_numpy()).groupby(log["session"].to_numpy()).min()
    return pa.table(columns), start.to_numpy()[session_I]


def _lists(path: Path, log: pa.Table) -> pa.Table:
    """The click-outs whose clicked hotel is in the list shown: all but a stray one."""
    lists = log.filter(pc.and_(pc.equal(log["action_type"], CLICKOUT), pc.is_valid(log["impressions"])))
    if not lists.num_rows:
        raise DataError(f"{path} is not the expected file: no event is a {CLICKOUT!r} with impressions")
    try:
        items = pc.split_pattern(lists["impressions"], "|").combine_chunks().cast(pa.list_(pa.int64()))
        prices = pc.split_pattern(lists["prices"], "|").combine_chunks().cast(pa.list_(pa.float64()))
        clicked = lists["reference"].cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: items and prices of a {CLICKOUT!r} must be numbers joined by | ({error})") from error
    if not pc.all(pc.equal(pc.list_value_length(items), pc.list_value_length(prices))).as_py():
        raise DataError(f"{path}: impressions and prices must have the same number of entries in every {CLICKOUT!r}")
    lists = lists.append_column("items", items).append_column("price_list", prices)
    lists = lists.append_column("clicked", clicked)
    is_hit_I = _flat(items) == np.repeat(lists["clicked"].to_numpy(), pc.list_value_length(items).to_numpy())
    is_hit_L = np.zeros(lists.num_rows, dtype=bool)
    is_hit_L[items.value_parent_indices().to_numpy()[is_hit_I]] = True
    return lists.filter(pa.array(is_hit_L)).combine_chunks()


def _item_events(log: pa.Table) -> tuple[ItemEvents, pa.Table]:
    """Events whose reference is a hotel, and their rows of the log."""
    on_items = pc.and_(
        pc.match_substring_regex(log["action_type"], "^(interaction item|clickout item|search for item)"),
        pc.match_substring_regex(log["reference"], "^[0-9]+$"),
    )
    found = log.filter(on_items)
    events = ItemEvents(
        found["session"].to_numpy(), found["step"].to_numpy(), found["reference"].cast(pa.int64()).to_numpy()
    )
    return events, found


def _price_rank(list_I: Ints, price_I: npt.NDArray[np.float64], num_L: Ints) -> Ints:
    """1 for the cheapest of a list; equal prices in the order given."""
    order_I = np.lexsort((price_I, list_I))
    rank_I = np.empty_like(list_I)
    rank_I[order_I] = np.arange(list_I.size) - np.repeat(np.cumsum(num_L) - num_L, num_L) + 1
    return rank_I


def _offset_from_last(list_I: Ints, position_I: Ints, is_latest_I: npt.NDArray[np.bool_]) -> pa.Array:
    """Places below the item last interacted with; null where that one is not in the list."""
    last_position_L = np.full(int(list_I.max()) + 1, -1, dtype=np.int64)
    last_position_L[list_I[is_latest_I]] = position_I[is_latest_I]
    last_I = last_position_L[list_I]
    return pa.array(position_I - last_I, mask=last_I < 0)


def _histories(events: ItemEvents, found: pa.Table, lists: pa.Table, list_I: Ints) -> dict[str, pa.Array]:
    """What the session did before the list: its last hotels, and its last events with hotel, action and time."""
    session_L, step_L = lists["session"].to_numpy(), lists["step"].to_numpy()

    def of_events(values: pa.Array, offsets: Ints, rows: Ints) -> pa.Array:
        of_lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(rows)))
        return of_lists.take(pa.array(list_I))

    items, actions, times = pa.array(events.item_N), found["action_type"].combine_chunks(), found["timestamp"]
    changes = events.history(session_L, step_L, max_length=NUM_ITEMS)
    history = events.history(session_L, step_L, max_length=HISTORY_LENGTH, repeats=True)
    return {
        "session_items": of_events(items, *changes),
        "history_items": of_events(items, *history),
        "history_actions": of_events(actions, *history),
        "history_times": of_events(times.combine_chunks(), *history),
    }


def _split(rows: pa.Table, session_start_I: Ints) -> dict[Split, pa.Table]:
    """Whole sessions by the time they began: the last are the test."""
    starts = np.sort(session_start_I)
    first_held_out = starts[int(SHARES["train"] * starts.size)]
    first_test = starts[int((SHARES["train"] + SHARES["validation"]) * starts.size)]
    code_I = (session_start_I >= first_held_out).astype(int) + (session_start_I >= first_test)
    return {split: rows.filter(pa.array(code_I == code)) for code, split in enumerate(SPLITS)}


def _baselines(test: pa.Table) -> dict[str, dict[str, float]]:
    """NDCG@10 and MRR of the order in which trivago showed the list, and of the cheapest first, by name."""
    is_click_I = test["click"].to_numpy() == 1
    baselines = {}
    for name, column in (("given order", "position"), ("price order", "price_rank")):
        rank_L = test[column].to_numpy()[is_click_I]
        # One click per list, so the best possible DCG is 1.
        baselines[name] = {
            "click.ndcg@10[all]": float(np.where(rank_L <= 10, 1 / np.log2(1 + rank_L), 0.0).mean()),
            "click.mrr[all]": float((1 / rank_L).mean()),
        }
    return baselines


def _flat(lists: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = (
        pa.concat_arrays(lists.chunks).flatten().to_numpy()
        if isinstance(lists, pa.ChunkedArray)
        else lists.flatten().to_numpy()
    )
    return values
