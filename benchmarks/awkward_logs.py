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
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.planted_effects import Effect, Floats, Ints, affinity, draw, living, normal_cdf, ranges, shares, zipf
from recmoe.data.synthetic import auc

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
    """Per outcome: its probability in each row; of an amount the expected value, or that of its logarithm."""
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


VIDEO_TASKS = ("click", "long_view", "like", "follow", "comment", "forward", "profile_enter", "play_time_ms")
VIDEO_RATES = (0.40, 0.25, 0.02, 0.006, 0.004, 0.0015, 0.007)
VIDEO_GAINS = (0, 3.0, 1.5, 2.0, 2.0, 1.0, 2.0)
"""What a click adds to the logit of each outcome."""
VIDEO_WEIGHTS = {
    "user": (0.65, 0.7, 1.1, 1.1, 1.1, 0.9, 1.0, 0.4),
    "author": (0.5, 0.5, 0.6, 0.7, 0.6, 0.6, 0.7, 0.25),
    "video": (0.3, 0.3, 0.2, 0.2, 0.3, 0.4, 0.2, 0.15),
    "tag": (0.3, 0.3, 0.3, 0.3, 0.3, 0.4, 0.2, 0.15),
    "tab": (0.7, 0.5, 0.3, 0.6, 0.5, 0.4, 0.8, 0.3),
    "hour": (0.05, 0.05, 0.1, 0.0, 0.0, 0.1, 0.0, 0.05),
    "follow": (0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.3, 0.0),
}
"""Of each effect on the logit of each task."""
VIDEO_LENGTH_WEIGHTS = (-0.3, -0.5, 0.1, 0.0, 0.1, 0.0, 0.0, 0.3)


def short_video(num_rows: int = 40_000, *, seed: int = 0) -> AwkwardLog:
    """Videos in a feed: mostly ids, most videos of the test not seen before, four of eight outcomes below 1 %."""
    rng = np.random.default_rng([seed, 1])
    num_days, num_videos, num_users, num_authors, num_tags = 14, 8_000, 1_000, 900, 60
    # People watch in the evening.
    hour_N = rng.choice(24, num_rows, p=shares(1.2 - np.cos((np.arange(24) - 9) / 24 * 2 * np.pi)))
    time_N = np.sort((rng.integers(num_days, size=num_rows) * 24 + hour_N) * 3600 + rng.integers(3600, size=num_rows))
    hour_N = time_N // 3600 % 24
    user_N = rng.choice(num_users, num_rows, p=shares(rng.lognormal(0, 1.3, num_users)))
    author_V = rng.choice(num_authors, num_videos, p=shares(rng.lognormal(0, 1.2, num_authors)))
    published_V = rng.uniform(-2, num_days, num_videos) * DAY_S
    video_N = living(time_N, published_V, popularity_V=rng.pareto(1.2, num_videos) + 0.1, life_s=0.8 * DAY_S, rng=rng)
    author_N = author_V[video_N]
    tags_V2 = np.stack([rng.integers(num_tags, size=num_authors)[author_V], zipf(num_videos, num_tags, 1.0, rng)], 1)
    duration_V = rng.lognormal(10.2, 0.8, num_videos).round()
    tab_N = rng.choice(8, num_rows, p=[0.45, 0.25, 0.12, 0.07, 0.05, 0.03, 0.02, 0.01])
    device_N = rng.choice(4, num_users, p=[0.5, 0.3, 0.15, 0.05])[user_N]
    active_U = np.digitize(np.bincount(user_N, minlength=num_users), [5, 20, 80])
    follow_U, fans_U = rng.integers(7, size=num_users), rng.integers(5, size=num_users)

    effects = {
        "user": Effect.draw(user_N, 8, rng, shared=0.4),
        "author": Effect.draw(author_N, 8, rng, shared=0.5),
        "video": Effect.draw(video_N, 8, rng, shared=0.6),
        "tag": Effect.draw(tags_V2[video_N, 0], 8, rng, shared=0.4),
        "tab": Effect.draw(tab_N, 8, rng, shared=0.3),
        "hour": Effect.draw(hour_N, 8, rng, shared=0.5),
        "follow": Effect.draw(follow_U[user_N], 8, rng, shared=0.2),
    }
    affinity_N = affinity(user_N, tags_V2[video_N, 0], rng)
    length_N = (np.log(duration_V) - 10.2)[video_N] / 0.8
    labels, truth = _video_outcomes(effects, affinity_N, length_N, rng)
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
        "follow_user_num_range": ranges(7)[follow_U[user_N]],
        "fans_user_num_range": ranges(5)[fans_U[user_N]],
        "duration_ms": duration_V[video_N].astype(np.int64),
        "music_id": 40_000 + rng.integers(3_000, size=num_videos)[video_N],
        "upload_type": np.array(["ShortImport", "LongCamera", "Web"])[rng.integers(3, size=num_videos)[video_N]],
        "onehot_feat1": rng.integers(20, size=num_users)[user_N],
        **labels,
    }
    return AwkwardLog("short_video", pa.table(columns), truth, time="time_ms")


def _video_outcomes(
    effects: Mapping[str, Effect], affinity_N: Floats, length_N: Floats, rng: np.random.Generator
) -> tuple[dict[str, Ints], dict[str, Floats]]:
    """Labels and truth of each task."""
    logits = [
        sum(VIDEO_WEIGHTS[name][task] * effect.rows(task) for name, effect in effects.items())
        + 0.35 * affinity_N
        + VIDEO_LENGTH_WEIGHTS[task] * length_N
        for task in range(len(VIDEO_TASKS))
    ]
    labels: dict[str, Ints] = {}
    truth: dict[str, Floats] = {}
    for name, logit_N, rate, gain in zip(VIDEO_TASKS, logits, VIDEO_RATES, VIDEO_GAINS, strict=False):
        labels[name], truth[name] = draw(
            logit_N, rate, rng, cause=truth.get("click"), label_N=labels.get("click"), gain=gain
        )
    truth["play_time_ms"] = 8.3 + 0.6 * logits[-1] + 1.3 * truth["click"]
    log_ms_N = 8.3 + 0.6 * logits[-1] + 1.3 * labels["click"] + rng.normal(0, 0.8, length_N.size)
    labels["play_time_ms"] = np.exp(log_ms_N).round().astype(np.int64)
    return labels, truth


def shop_events(num_rows: int = 25_000, *, seed: int = 0) -> AwkwardLog:
    """What users of a shop did with an item on a day: most items are seen once or twice."""
    rng = np.random.default_rng([seed, 2])
    num_days, num_users, num_items, num_categories = 30, 2_500, 12_000, 800
    time_N = np.sort(rng.integers(num_days * DAY_S, size=num_rows))
    day_N, hour_N = time_N // DAY_S, time_N // 3600 % 24
    user_N = rng.choice(num_users, num_rows, p=shares(rng.lognormal(0, 0.6, num_users)))
    item_N = zipf(num_rows, num_items, 0.5, rng)
    category_I = zipf(num_items, num_categories, 0.8, rng)
    category_N = category_I[item_N]
    names = ("view_again", "cart", "favourite", "buy")
    user = Effect.draw(user_N, 4, rng, shared=0.3)
    category = Effect.draw(category_N, 4, rng, shared=0.5)
    item = Effect.draw(item_N, 4, rng, shared=0.7)
    hour = Effect.draw(hour_N, 4, rng, shared=0.5)
    affinity_N = affinity(user_N, category_N, rng)
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
        labels[name], truth[name] = draw(
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
    user_N = rng.choice(num_users, num_rows, p=shares(rng.lognormal(0, 0.9, num_users)))
    item_N = zipf(num_rows, num_items, 0.7, rng)
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
    above = {stars: normal_cdf((mean_N - (stars - 0.5)) / noise) for stars in (2, 3, 4, 5)}
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
