"""SyntheticLog: clicks, purchases and seconds watched, drawn from probabilities that are known.

Every request shows a user ten items. What decides about a click, about a purchase after it and about the time spent
comes from partly different columns, and price pulls clicks and purchases apart: tasks that are better not forced
through one representation. Since the true probabilities are known, so is the best that any model can reach.
"""

# R requests, C candidates of a request, N = R · C rows, U users, I items, K latent width

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recmoe.data.splits import Split, SplitWriter
from recmoe.data.synthetic_world import SyntheticWorld
from recmoe.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_CANDIDATES = 10
CHUNK_REQUESTS = 4096
FIRST_SECOND = 1_750_000_000
LOG_SECONDS = 14 * 86_400
SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
DEVICES = np.array(["mobile", "desktop", "tablet"])


@dataclass(frozen=True)
class SyntheticRows:
    """Rows of the log, and the truth behind each."""

    table: pa.Table
    click_N: Floats
    """Probability of a click."""
    purchase_N: Floats
    """Probability of a purchase after a click."""
    watch_median_N: Floats
    """Median of the seconds watched after a click."""
    watch_mean_N: Floats
    """Mean of the seconds watched after a click."""


class SyntheticLog:
    """A log of any length, made chunk by chunk; the same seed gives the same rows.

    One row, shortened::

        request_id timestamp  user_id age interests device hour item_id category price position click purchase watch_s
        17         1750000713 u42     31  [c3, c8]  mobile 9    i7      c3       24.9  2        1     0        12.5

    ``watch_s`` is null where there was no click; age is null in 3 % of the users.

    Args:
        num_requests: lists of ten items.
        seed: of everything that is drawn.
    """

    def __init__(self, num_requests: int, *, seed: int = 0) -> None:
        self.num_requests = num_requests
        self.seed = seed
        self.world = SyntheticWorld(seed)

    def chunks(self) -> Iterator[SyntheticRows]:
        """The rows in the order of time."""
        for first in range(0, self.num_requests, CHUNK_REQUESTS):
            yield self._chunk(first, min(CHUNK_REQUESTS, self.num_requests - first))

    def _chunk(self, first: int, num_requests: int) -> SyntheticRows:
        rng = np.random.default_rng([self.seed, 1, first])
        world = self.world
        request_R = np.arange(first, first + num_requests)
        time_R = FIRST_SECOND + (request_R + rng.random(num_requests)) * (LOG_SECONDS / self.num_requests)
        time_R = time_R.astype(np.int64)
        user_R = world.draw_users(rng, num_requests)
        device_R = rng.choice(DEVICES.size, size=num_requests, p=[0.6, 0.3, 0.1])
        item_RC = world.draw_items(rng, num_requests, NUM_CANDIDATES)

        # The list is in the order of a rough guess at the click, as a real log is.
        guess_RC = world.quality_I[item_RC] + rng.normal(0.0, 1.0, item_RC.shape)
        item_N = np.take_along_axis(item_RC, np.argsort(-guess_RC, axis=1), axis=1).ravel()
        position_N = np.tile(np.arange(1, NUM_CANDIDATES + 1), num_requests)
        user_N: Ints = np.repeat(user_R, NUM_CANDIDATES)
        device_N: Ints = np.repeat(device_R, NUM_CANDIDATES)
        time_N: Ints = np.repeat(time_R, NUM_CANDIDATES)
        hour_N: Ints = time_N // 3600 % 24
        # Prices move from request to request: promotions, currencies.
        price_N = np.asarray(
            np.round(np.exp(world.log_price_I[item_N] + rng.normal(0.0, 0.2, item_N.size)), 2), dtype=np.float64
        )

        click_N = _sigmoid(world.click_logit(user_N, item_N, position_N, price_N))
        purchase_N = _sigmoid(world.purchase_logit(user_N, item_N, price_N, hour_N))
        watch_log_N = world.watch_log_seconds(user_N, item_N, device_N, hour_N)
        is_click_N = rng.random(item_N.size) < click_N
        is_purchase_N = is_click_N & (rng.random(item_N.size) < purchase_N)
        watch_N = np.exp(watch_log_N + rng.normal(0.0, world.watch_sigma, item_N.size))

        table = pa.table(
            {
                "request_id": pa.array(np.repeat(request_R, NUM_CANDIDATES)),
                "timestamp": pa.array(time_N),
                "user_id": _names("u", user_N),
                "age": pa.array(world.age_U[user_N], mask=world.is_age_missing_U[user_N]),
                "plan": pa.array(world.plan_names[world.plan_U[user_N]]),
                "interests": world.interests_U.take(pa.array(user_N)),
                "device": pa.array(DEVICES[device_N]),
                "hour": pa.array(hour_N),
                "item_id": _names("i", item_N),
                "category": _names("c", world.category_I[item_N]),
                "brand": _names("b", world.brand_I[item_N]),
                "price": pa.array(price_N),
                "duration_s": pa.array(world.duration_I[item_N]),
                "position": pa.array(position_N),
                "click": pa.array(is_click_N.astype(np.int8)),
                "purchase": pa.array(is_purchase_N.astype(np.int8)),
                "watch_s": pa.array(np.round(watch_N, 1), mask=~is_click_N),
            }
        )
        return SyntheticRows(
            table=table,
            click_N=click_N,
            purchase_N=purchase_N,
            watch_median_N=np.exp(watch_log_N),
            watch_mean_N=np.exp(watch_log_N + world.watch_sigma**2 / 2),
        )


@dataclass(frozen=True)
class SyntheticResult:
    """What was written."""

    config: Path
    num_rows: dict[Split, int]
    truth: dict[str, float]
    """Best reachable value of each metric on the test split, by name: ``ctr.auc[all]`` …"""


def write_synthetic(target: Path, *, num_rows: int = 300_000, seed: int = 0) -> SyntheticResult:
    """Write the splits, ``config.yaml`` and ``truth.json`` into a folder; the split is by request and by time.

    Args:
        num_rows: of all splits together; rounded down to whole requests of ten rows.

    Raises:
        DataError: fewer rows than a split needs.
    """
    num_requests = num_rows // NUM_CANDIDATES
    if num_requests < 100:
        raise DataError(f"a synthetic log needs at least {100 * NUM_CANDIDATES} rows, got num_rows={num_rows}")
    log = SyntheticLog(num_requests, seed=seed)
    ends = {"train": SHARES["train"], "validation": SHARES["train"] + SHARES["validation"], "test": 1.0}
    tests: list[SyntheticRows] = []
    chunks = log.chunks()
    first = next(chunks)
    with SplitWriter(target, first.table.schema) as writer:
        start = 0
        for rows in _chain(first, chunks):
            end = start + rows.table.num_rows
            split_start = 0
            for split in SHARES:
                split_end = round(ends[split] * num_requests) * NUM_CANDIDATES
                low, high = max(start, split_start), min(end, split_end)
                if low < high:
                    part = _slice(rows, low - start, high - start)
                    writer.write(split, part.table)
                    if split == "test":
                        tests.append(part)
                split_start = split_end
            start = end
    truth = best_reachable(tests)
    (target / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    config = target / "config.yaml"
    config.write_text((resources.files("recmoe.data") / "synthetic.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return SyntheticResult(config=config, num_rows=writer.num_rows, truth=truth)


def best_reachable(parts: list[SyntheticRows]) -> dict[str, float]:
    """Metrics of the true probabilities themselves: what no model beats but by chance."""
    click_N = np.concatenate([part.click_N for part in parts])
    purchase_N = np.concatenate([part.purchase_N for part in parts])
    table = pa.concat_tables([part.table for part in parts])
    is_click_N = table["click"].to_numpy() == 1
    is_purchase_N = table["purchase"].to_numpy() == 1
    watch = table["watch_s"].to_numpy()[is_click_N]
    median = np.concatenate([part.watch_median_N for part in parts])[is_click_N]
    mean = np.concatenate([part.watch_mean_N for part in parts])[is_click_N]
    return {
        "ctr.auc[all]": auc(is_click_N, click_N),
        "cvr.auc[click]": auc(is_purchase_N[is_click_N], purchase_N[is_click_N]),
        "ctcvr.auc[all]": auc(is_purchase_N, click_N * purchase_N),
        "watch.mae[click]": float(np.abs(watch - median).mean()) if watch.size else float("nan"),
        "watch.rmse[click]": float(np.sqrt(((watch - mean) ** 2).mean())) if watch.size else float("nan"),
    }


def auc(is_positive_N: npt.NDArray[np.bool_], score_N: Floats) -> float:
    """Area under the ROC curve, ties counted half; NaN where a class is missing."""
    _, place_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(count) - (count - 1) / 2)[place_N]
    num_positive = int(is_positive_N.sum())
    num_negative = is_positive_N.size - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    return float((rank_N[is_positive_N].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _chain(first: SyntheticRows, rest: Iterator[SyntheticRows]) -> Iterator[SyntheticRows]:
    yield first
    yield from rest


def _slice(rows: SyntheticRows, start: int, end: int) -> SyntheticRows:
    return SyntheticRows(
        table=rows.table.slice(start, end - start),
        click_N=rows.click_N[start:end],
        purchase_N=rows.purchase_N[start:end],
        watch_median_N=rows.watch_median_N[start:end],
        watch_mean_N=rows.watch_mean_N[start:end],
    )


def _names(prefix: str, number_N: Ints) -> pa.Array:
    values, place_N = np.unique(number_N, return_inverse=True)
    return pa.array([f"{prefix}{value}" for value in values]).take(pa.array(place_N))


def _sigmoid(logit_N: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logit_N)))
