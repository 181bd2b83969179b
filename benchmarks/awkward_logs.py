"""Logs that first models find hard, made from a seed: short videos, shop events, ratings; and the best AUC on each.

python -m benchmarks.awkward_logs --to benchmarks/.cache/awkward
"""

# N rows, T tasks, K latent width

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.synthetic import auc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TEST_SHARE = 0.1
"""Of the rows, the last by time: what ``recmoe init`` makes the test of these logs."""
DAY_S = 86_400
START_S = 1_748_736_000
"""1 June 2025, when all logs begin."""


@dataclass(frozen=True)
class AwkwardLog:
    """A log in the order of time, and what its outcomes were drawn from."""

    name: str
    table: pa.Table
    truth: Mapping[str, Floats]
    """Per outcome of 0 and 1 its probability in each row; per amount its expected value, of the log where compressed."""
    time: str
    """The column by which rows are in order."""

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Columns that are known only afterwards."""
        return tuple(self.truth)

    def best_auc(self, share: float = TEST_SHARE) -> dict[str, float]:
        """The AUC of the true probabilities over the last rows, by outcome; noisy where positives are few."""
        first = self.table.num_rows - round(share * self.table.num_rows)
        labels = {name: self.table[name].to_numpy()[first:] for name in self.outcomes}
        return {
            name: auc(labels[name] == 1, truth_N[first:])
            for name, truth_N in self.truth.items()
            if set(np.unique(labels[name])) == {0, 1}
        }

    def write(self, folder: Path) -> Path:
        """``<name>.parquet``, and the best AUCs as ``<name>.json``; returns the log's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.parquet"
        pq.write_table(self.table, path)
        best = {"outcomes": self.outcomes, "best_auc": self.best_auc(), "best_auc_of_all_rows": self.best_auc(1.0)}
        path.with_suffix(".json").write_text(json.dumps(best, indent=2) + "\n", encoding="utf-8")
        return path


@dataclass(frozen=True)
class Effect:
    """Something that outcomes depend on: a standard normal per value and task, partly common to all tasks.

    Effects have correlation ``shared`` between any two tasks.
    """

    values_N: Ints
    """Which value each row has."""
    effect_VT: Floats

    @classmethod
    def draw(cls, values_N: Ints, num_tasks: int, rng: np.random.Generator, *, shared: float) -> "Effect":
        """Draw the effects of all values."""
        num_values = int(values_N.max()) + 1
        common_V1, own_VT = rng.normal(size=(num_values, 1)), rng.normal(size=(num_values, num_tasks))
        return cls(values_N, np.sqrt(shared) * common_V1 + np.sqrt(1 - shared) * own_VT)

    def rows(self, task: int) -> Floats:
        """The effect on a task in each row."""
        effect_N: Floats = self.effect_VT[self.values_N, task]
        return effect_N


def short_video(num_rows: int = 40_000, *, seed: int = 0) -> AwkwardLog:
    """Videos in a feed: mostly ids, most videos of the test not seen before, four of eight outcomes below 1 %."""
    rng = np.random.default_rng([seed, 1])
    num_days, num_videos, num_users, num_authors, num_tags = 14, 8_000, 1_000, 900, 60
    # People watch in the evening.
    hour_N = rng.choice(24, num_rows, p=_shares(1.2 - np.cos((np.arange(24) - 9) / 24 * 2 * np.pi)))
    time_N = np.sort((rng.integers(num_days, size=num_rows) * 24 + hour_N) * 3600 + rng.integers(3600, size=num_rows))
    hour_N = time_N // 3600 % 24
    user_N = rng.choice(num_users, num_rows, p=_shares(rng.lognormal(0, 1.3, num_users)))
    author_V = rng.choice(num_authors, num_videos, p=_shares(rng.lognormal(0, 1.2, num_authors)))
    published_V = rng.uniform(-2, num_days, num_videos) * DAY_S
    video_N = _living(time_N, published_V, popularity_V=rng.pareto(1.2, num_videos) + 0.1, life_s=0.8 * DAY_S, rng=rng)
    author_N = author_V[video_N]
    tags_V2 = np.stack([rng.integers(num_tags, size=num_authors)[author_V], _zipf(num_videos, num_tags, 1.0, rng)], 1)
    duration_V = rng.lognormal(10.2, 0.8, num_videos).round()
    tab_N = rng.choice(8, num_rows, p=[0.45, 0.25, 0.12, 0.07, 0.05, 0.03, 0.02, 0.01])
    device_N = rng.choice(4, num_users, p=[0.5, 0.3, 0.15, 0.05])[user_N]
    active_U = np.digitize(np.bincount(user_N, minlength=num_users), [5, 20, 80])
    follow_U, fans_U = rng.integers(7, size=num_users), rng.integers(5, size=num_users)

    names = ("click", "long_view", "like", "follow", "comment", "forward", "profile_enter", "play_time_ms")
    effects = {
        "user": Effect.draw(user_N, 8, rng, shared=0.4),
        "author": Effect.draw(author_N, 8, rng, shared=0.5),
        "video": Effect.draw(video_N, 8, rng, shared=0.6),
        "tag": Effect.draw(tags_V2[video_N, 0], 8, rng, shared=0.4),
        "tab": Effect.draw(tab_N, 8, rng, shared=0.3),
        "hour": Effect.draw(hour_N, 8, rng, shared=0.5),
        "follow": Effect.draw(follow_U[user_N], 8, rng, shared=0.2),
    }
    weights = {  # Per task, in the order of the names.
        "user": (0.65, 0.7, 1.1, 1.1, 1.1, 0.9, 1.0, 0.4),
        "author": (0.5, 0.5, 0.6, 0.7, 0.6, 0.6, 0.7, 0.25),
        "video": (0.3, 0.3, 0.2, 0.2, 0.3, 0.4, 0.2, 0.15),
        "tag": (0.3, 0.3, 0.3, 0.3, 0.3, 0.4, 0.2, 0.15),
        "tab": (0.7, 0.5, 0.3, 0.6, 0.5, 0.4, 0.8, 0.3),
        "hour": (0.05, 0.05, 0.1, 0.0, 0.0, 0.1, 0.0, 0.05),
        "follow": (0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.3, 0.0),
    }
    affinity_N = _affinity(user_N, tags_V2[video_N, 0], rng)
    length_N = (np.log(duration_V) - 10.2)[video_N] / 0.8
    by_length = (-0.3, -0.5, 0.1, 0.0, 0.1, 0.0, 0.0, 0.3)
    logits = [
        sum(weights[name][task] * effect.rows(task) for name, effect in effects.items())
        + 0.35 * affinity_N
        + by_length[task] * length_N
        for task in range(8)
    ]
    labels: dict[str, Ints] = {}
    truth: dict[str, Floats] = {}
    rates = (0.40, 0.25, 0.02, 0.006, 0.004, 0.0015, 0.007)
    for name, logit_N, rate, after in zip(names, logits, rates, (0, 3.0, 1.5, 2.0, 2.0, 1.0, 2.0), strict=False):
        labels[name], truth[name] = _draw(logit_N, rate, rng, cause=truth.get("click"), label_N=labels.get("click"),
                                          gain=after)  # fmt: skip
    log_ms_N = 8.3 + 0.6 * logits[7] + 1.3 * labels["click"] + rng.normal(0, 0.8, num_rows)
    labels["play_time_ms"] = np.exp(log_ms_N).round().astype(np.int64)
    truth["play_time_ms"] = 8.3 + 0.6 * logits[7] + 1.3 * truth["click"]
    tag_text_V = np.where(
        tags_V2[:, 0] == tags_V2[:, 1], tags_V2[:, 0].astype(str),
        np.char.add(np.char.add(tags_V2[:, 0].astype(str), ","), tags_V2[:, 1].astype(str)),
    )  # fmt: skip
    columns = {
        "user_id": 100_000 + user_N * 37,
        "video_id": 5_000_000 + rng.permutation(num_videos)[video_N],
        "author_id": 700_000 + author_N * 11,
        "time_ms": (START_S + time_N) * 1000 + rng.integers(1000, size=num_rows),
        "tab": tab_N,
        "tag": tag_text_V[video_N],
        "hour": hour_N,
        "device": np.array(["android", "ios", "pad", "tv"])[device_N],
        "user_active_degree": np.array(["low", "middle", "high", "full"])[active_U[user_N]],
        "follow_user_num_range": _ranges(7)[follow_U[user_N]],
        "fans_user_num_range": _ranges(5)[fans_U[user_N]],
        "duration_ms": duration_V[video_N].astype(np.int64),
        "music_id": 40_000 + rng.integers(3_000, size=num_videos)[video_N],
        "upload_type": np.array(["ShortImport", "LongCamera", "Web"])[rng.integers(3, size=num_videos)[video_N]],
        "onehot_feat1": rng.integers(20, size=num_users)[user_N],
        **labels,
    }
    return AwkwardLog("short_video", pa.table(columns), truth, time="time_ms")


def shop_events(num_rows: int = 25_000, *, seed: int = 0) -> AwkwardLog:
    """What users of a shop did with an item on a day: most items are seen once or twice."""
    rng = np.random.default_rng([seed, 2])
    num_days, num_users, num_items, num_categories = 30, 2_500, 12_000, 800
    time_N = np.sort(rng.integers(num_days * DAY_S, size=num_rows))
    day_N, hour_N = time_N // DAY_S, time_N // 3600 % 24
    user_N = rng.choice(num_users, num_rows, p=_shares(rng.lognormal(0, 0.6, num_users)))
    item_N = _zipf(num_rows, num_items, 0.5, rng)
    category_I = _zipf(num_items, num_categories, 0.8, rng)
    category_N = category_I[item_N]
    names = ("view_again", "cart", "favourite", "buy")
    user = Effect.draw(user_N, 4, rng, shared=0.3)
    category = Effect.draw(category_N, 4, rng, shared=0.5)
    item = Effect.draw(item_N, 4, rng, shared=0.7)
    hour = Effect.draw(hour_N, 4, rng, shared=0.5)
    affinity_N = _affinity(user_N, category_N, rng)
    labels: dict[str, Ints] = {}
    truth: dict[str, Floats] = {}
    for task, (name, rate, by_user, by_category, gain) in enumerate(
        zip(
            names,
            (0.13, 0.09, 0.03, 0.025),
            (0.8, 0.9, 1.6, 1.0),
            (0.4, 0.5, 0.6, 0.7),
            (0, 0.5, 0.5, 1.0),
            strict=True,
        )
    ):
        logit_N = (
            by_user * user.rows(task) + by_category * category.rows(task) + 0.3 * item.rows(task)
            + 0.15 * hour.rows(task) + 0.3 * affinity_N
        )  # fmt: skip
        labels[name], truth[name] = _draw(
            logit_N, rate, rng, cause=truth.get("view_again"), label_N=labels.get("view_again"), gain=gain
        )
    columns = {
        "user_id": 1_000_000 + user_N * 13,
        "item_id": 30_000_000 + rng.permutation(num_items)[item_N] * 7,
        "item_category": 4_000 + category_N * 3,
        "date": (np.datetime64("2025-06-01") + day_N).astype("datetime64[D]"),
        "hour": hour_N,
        "weekday": (day_N + 6) % 7,
        **labels,
    }
    return AwkwardLog("shop_events", pa.table(columns), truth, time="date")


def ratings(num_rows: int = 60_000, *, seed: int = 0) -> AwkwardLog:
    """Ratings from 1 to 5 by users and films with latent factors; liked from 4 on, loved at 5."""
    rng = np.random.default_rng([seed, 3])
    num_users, num_items, width, noise = 900, 1_500, 6, 0.85
    user_N = rng.choice(num_users, num_rows, p=_shares(rng.lognormal(0, 0.9, num_users)))
    item_N = _zipf(num_rows, num_items, 0.7, rng)
    # Users come one after the other, and some stay.
    start_U, stay_U = rng.uniform(-60, 200, num_users), rng.exponential(60, num_users)
    day_N = (start_U[user_N] + rng.uniform(0, 1, num_rows) * stay_U[user_N]) % 200
    order_N = np.argsort(day_N)
    user_N, item_N, day_N = user_N[order_N], item_N[order_N], day_N[order_N]
    # Films of one genre share part of their factors, people of one age part of theirs.
    genre_I = rng.integers(18, size=num_items)
    age_U = np.clip(rng.normal(33, 12, num_users), 8, 75).astype(np.int64)
    q_IK = 0.7 * rng.normal(size=(18, width))[genre_I] + 0.7 * rng.normal(size=(num_items, width))
    p_UK = 0.4 * rng.normal(size=(8, width))[age_U // 10] + 0.9 * rng.normal(size=(num_users, width))
    year_I = 1998 - np.minimum(rng.exponential(8, num_items).astype(np.int64), 70)
    mean_N = (
        3.55
        + rng.normal(0, 0.42, num_users)[user_N]
        + (rng.normal(0, 0.5, num_items) - 0.01 * (year_I - 1990))[item_N]
        + 0.4 * (p_UK[user_N] * q_IK[item_N]).sum(axis=1) / np.sqrt(width)
    )
    rating_N = np.clip(np.round(mean_N + rng.normal(0, noise, num_rows)), 1, 5).astype(np.int64)
    above = {stars: _normal_cdf((mean_N - (stars - 0.5)) / noise) for stars in (2, 3, 4, 5)}
    second_I = rng.integers(18, size=num_items)
    genres = np.array(GENRES)
    genres_I = np.where(
        rng.random(num_items) < 0.5, genres[genre_I], np.char.add(np.char.add(genres[genre_I], "|"), genres[second_I])
    )
    columns = {
        "user_id": 1 + user_N,
        "movie_id": 1 + rng.permutation(num_items)[item_N],
        "rating": rating_N,
        "timestamp": (START_S + day_N * DAY_S).astype(np.int64),
        "age": age_U[user_N],
        "gender": np.where(rng.random(num_users) < 0.3, "F", "M")[user_N],
        "occupation": rng.integers(21, size=num_users)[user_N],
        "year": year_I[item_N],
        "genres": genres_I[item_N],
        "like": (rating_N >= 4).astype(np.int64),
        "love": (rating_N == 5).astype(np.int64),
    }
    truth = {"rating": 1 + sum(above.values(), np.zeros(num_rows)), "like": above[4], "love": above[5]}
    return AwkwardLog("ratings", pa.table(columns), truth, time="timestamp")


MAKERS: Mapping[str, Callable[..., AwkwardLog]] = {
    "short_video": short_video,
    "shop_events": shop_events,
    "ratings": ratings,
}
GENRES = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def _shares(weights: Floats) -> Floats:
    return weights / weights.sum()


def _zipf(num: int, num_values: int, exponent: float, rng: np.random.Generator) -> Ints:
    return rng.choice(num_values, num, p=_shares((1.0 + np.arange(num_values)) ** -exponent))


def _ranges(num: int) -> npt.NDArray[np.str_]:
    ends = [0, *(10**power for power in range(num))]
    return np.array([f"({low},{high}]" for low, high in zip(ends, ends[1:], strict=False)])


def _living(
    time_N: Ints, published_V: Floats, *, popularity_V: Floats, life_s: float, rng: np.random.Generator
) -> Ints:
    """A video that is out already for each row, the newer the likelier; times in seconds, in order."""
    hour_N = time_N // 3600
    video_N = np.empty(time_N.size, dtype=np.int64)
    for hour in np.unique(hour_N):
        is_here_N = hour_N == hour
        age_V = hour * 3600.0 - published_V
        weight_V = np.where(age_V >= 0, popularity_V * np.exp(-np.maximum(age_V, 0) / life_s), 0.0)
        video_N[is_here_N] = rng.choice(published_V.size, int(is_here_N.sum()), p=_shares(weight_V))
    return video_N


def _affinity(left_N: Ints, right_N: Ints, rng: np.random.Generator, *, width: int = 4) -> Floats:
    """What a pair of values adds beyond both: a standard normal, by latent factors."""
    left_VK, right_VK = (rng.normal(size=(int(values_N.max()) + 1, width)) for values_N in (left_N, right_N))
    product_N: Floats = (left_VK[left_N] * right_VK[right_N]).sum(axis=1) / np.sqrt(width)
    return product_N


def _draw(
    logit_N: Floats, rate: float, rng: np.random.Generator, *, cause: Floats | None, label_N: Ints | None, gain: float
) -> tuple[Ints, Floats]:
    """An outcome at a rate, and its probability; another outcome, if it happened, adds ``gain`` to its logit."""

    def probability(shift: float) -> Floats:
        without_N = _sigmoid(logit_N + shift)
        if cause is None:
            return without_N
        mixed_N: Floats = cause * _sigmoid(logit_N + shift + gain) + (1 - cause) * without_N
        return mixed_N

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if probability(middle).mean() > rate else (middle, high)
    happened_N = np.zeros(logit_N.size) if label_N is None else label_N
    drawn_N = rng.random(logit_N.size) < _sigmoid(logit_N + low + gain * happened_N)
    return drawn_N.astype(np.int64), probability(low)


def _sigmoid(logit_N: Floats) -> Floats:
    sigmoid_N: Floats = 1 / (1 + np.exp(-logit_N))
    return sigmoid_N


def _normal_cdf(z_N: Floats) -> Floats:
    import torch

    cdf_N: Floats = torch.special.ndtr(torch.from_numpy(z_N)).numpy()
    return cdf_N


def main() -> None:
    """Write all logs, and print the rate and the best AUC of each outcome."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.awkward_logs", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="folder for a Parquet file per log")
    parser.add_argument("--rows", type=int, help="rows per log; by default 40,000, 25,000 and 60,000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for maker in MAKERS.values():
        log = maker(seed=options.seed) if options.rows is None else maker(options.rows, seed=options.seed)
        print(f"{log.write(options.to)}: {log.table.num_rows:,} rows")
        best, best_of_all = log.best_auc(), log.best_auc(1.0)
        for name in log.outcomes:
            mean = log.table[name].to_numpy().mean()
            reach = (
                f"best AUC {best[name]:.3f} of the last tenth, {best_of_all[name]:.3f} of all" if name in best else ""
            )
            print(f"  {name:<15}{mean:12.4f}  {reach}")


if __name__ == "__main__":
    main()
