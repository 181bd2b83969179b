"""ClickLog: the synthetic log that every participant of a benchmark trains on, and the best AUC on it.

python -m benchmarks.log --to benchmarks/.cache/log
"""

# N rows of a block, F id features, P pairs of features, K latent width, X floats

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recmoe.data.splits import Split, SplitWriter
from recmoe.data.synthetic import auc
from recmoe.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

NUM_IDS: tuple[int, ...] = tuple(round(float(num)) for num in np.geomspace(10, 1_000_000, 26))
"""Different ids of each feature: 26 of them, from 10 to 1,000,000, 2.71 million together."""
ID_COLUMNS = tuple(f"id_{number:02d}" for number in range(len(NUM_IDS)))
FLOAT_COLUMNS = tuple(f"x_{number:02d}" for number in range(13))
LABELS = ("click", "conversion")
SHARES: dict[Split, float] = {"train": 0.85, "validation": 0.05, "test": 0.1}
CLICK_RATE = 0.10
CONVERSION_RATE = 0.01
"""Of all rows; only rows with a click convert."""
ZIPF_EXPONENT = 1.1
NUM_PAIRS = 10
LATENT_WIDTH = 4
BLOCK_ROWS = 100_000
PILOT_ROWS = 200_000
"""Rows drawn to set the intercepts; they are not part of the log."""
MIN_ROWS = 1000
TRUTH = "truth.json"


@dataclass(frozen=True)
class ClickRows:
    """Rows of the log and the true probabilities behind their labels."""

    table: pa.Table
    click_N: Floats
    conversion_N: Floats
    """Over all rows: click and conversion together."""


class ClickLog:
    """Rows of any number, made block by block; the same seed gives the same rows.

    With f over the id features, (f, g) over ten pairs of them, and all weights drawn once::

        click        a0 + sum u_f[id] + sum <v_f[id], v_g[id]> + w.x + 1/2 sin 2 x0 + 0.4 (x1^2 - 1) + 0.4 x2 x3
        conversion   b0 + 1/2 (the click logit without a0) + sum c_f[id] + w'.x + 0.4 x4 x5       given a click

        u, c ~ N(0, .22^2)     v in R^4 ~ N(0, .45^2)     w, w' ~ N(0, .15^2)     x ~ N(0, 1)

    a0 and b0 give 10 % clicks and 1 % conversions. Ids are 0 … n - 1, drawn by Zipf(1.1) and scattered by a
    permutation.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        num_features = len(NUM_IDS)
        self._cumulative = [_zipf_cumulative(num) for num in NUM_IDS]
        self._scatter: list[Ints] = [rng.permutation(num).astype(np.int32) for num in NUM_IDS]
        self._u = [rng.normal(0.0, 0.22, num) for num in NUM_IDS]
        self._c = [rng.normal(0.0, 0.22, num) for num in NUM_IDS]
        every_pair = [(f, g) for f in range(num_features) for g in range(f)]
        self.pairs = [every_pair[place] for place in rng.choice(len(every_pair), size=NUM_PAIRS, replace=False)]
        self._v = {f: rng.normal(0.0, 0.45, (NUM_IDS[f], LATENT_WIDTH)) for f in sorted({*sum(self.pairs, ())})}
        self._w_X = rng.normal(0.0, 0.15, len(FLOAT_COLUMNS))
        self._w2_X = rng.normal(0.0, 0.15, len(FLOAT_COLUMNS))
        self._a0, self._b0 = 0.0, 0.0
        self._set_intercepts()

    def blocks(self, split: Split, num_rows: int) -> Iterator[ClickRows]:
        """The rows of a split."""
        for start in range(0, num_rows, BLOCK_ROWS):
            rng = np.random.default_rng([self.seed, 1 + list(SHARES).index(split), start])
            yield self._block(rng, min(BLOCK_ROWS, num_rows - start))

    def _block(self, rng: np.random.Generator, num_rows: int) -> ClickRows:
        id_FN, x_NX = self._draw(rng, num_rows)
        click_logit_N, conversion_logit_N = self._logits(id_FN, x_NX)
        click_N, conversion_N = _sigmoid(click_logit_N), _sigmoid(conversion_logit_N)
        is_click_N = rng.random(num_rows) < click_N
        is_conversion_N = is_click_N & (rng.random(num_rows) < conversion_N)
        columns = {name: pa.array(id_N) for name, id_N in zip(ID_COLUMNS, id_FN, strict=True)}
        columns |= {name: pa.array(x_NX[:, place].astype(np.float32)) for place, name in enumerate(FLOAT_COLUMNS)}
        columns |= {
            "click": pa.array(is_click_N.astype(np.int8)),
            "conversion": pa.array(is_conversion_N.astype(np.int8)),
        }
        return ClickRows(table=pa.table(columns), click_N=click_N, conversion_N=click_N * conversion_N)

    def _draw(self, rng: np.random.Generator, num_rows: int) -> tuple[list[Ints], Floats]:
        id_FN = []
        for cumulative, scatter in zip(self._cumulative, self._scatter, strict=True):
            # Sorted draws keep the search in the cache; the shuffle makes them independent of the row again.
            rank_N = np.searchsorted(cumulative, np.sort(rng.random(num_rows)), side="right")
            id_FN.append(scatter[rank_N][rng.permutation(num_rows)])
        return id_FN, rng.normal(size=(num_rows, len(FLOAT_COLUMNS)))

    def _logits(self, id_FN: list[Ints], x_NX: Floats) -> tuple[Floats, Floats]:
        """Logits of a click, and of a conversion given a click."""
        latent_N = x_NX @ self._w_X + 0.5 * np.sin(2 * x_NX[:, 0])
        latent_N += 0.4 * (x_NX[:, 1] ** 2 - 1) + 0.4 * x_NX[:, 2] * x_NX[:, 3]
        own_N = x_NX @ self._w2_X + 0.4 * x_NX[:, 4] * x_NX[:, 5]
        for u, c, id_N in zip(self._u, self._c, id_FN, strict=True):
            latent_N += u[id_N]
            own_N += c[id_N]
        for f, g in self.pairs:
            latent_N += np.einsum("nk,nk->n", self._v[f][id_FN[f]], self._v[g][id_FN[g]])
        return self._a0 + latent_N, self._b0 + 0.5 * latent_N + own_N

    def _set_intercepts(self) -> None:
        click_logit_N, conversion_logit_N = self._logits(*self._draw(np.random.default_rng([self.seed, 9]), PILOT_ROWS))
        self._a0 = _root(lambda a0: float(_sigmoid(a0 + click_logit_N).mean()) - CLICK_RATE)
        click_N = _sigmoid(self._a0 + click_logit_N)
        self._b0 = _root(lambda b0: float((click_N * _sigmoid(b0 + conversion_logit_N)).mean()) - CONVERSION_RATE)


def write_log(folder: Path, *, num_rows: int = 2_000_000, seed: int = 0) -> dict[str, float]:
    """Write ``train.parquet``, ``validation.parquet``, ``test.parquet`` and ``truth.json``.

    Returns:
        rates of the labels in the training rows, and the test AUC of the true probabilities: the best anybody can
        reach. The same is in ``truth.json``, which is written last.

    Raises:
        DataError: fewer rows than a split needs.
    """
    if num_rows < MIN_ROWS:
        raise DataError(f"a log for the benchmark needs at least {MIN_ROWS} rows, got num_rows={num_rows}")
    log = ClickLog(seed=seed)
    schema = next(log.blocks("train", 1)).table.schema
    tests: list[ClickRows] = []
    num_positive = dict.fromkeys(LABELS, 0)
    (folder / TRUTH).unlink(missing_ok=True)
    with SplitWriter(folder, schema) as writer:
        for split, share in SHARES.items():
            for rows in log.blocks(split, round(share * num_rows)):
                writer.write(split, rows.table)
                if split == "test":
                    tests.append(rows)
                if split == "train":
                    num_positive = {name: num_positive[name] + _num_positive(rows.table, name) for name in LABELS}
    truth = {f"{name}_rate": num_positive[name] / writer.num_rows["train"] for name in LABELS}
    truth |= _best_auc(tests)
    truth |= {"num_rows": num_rows, "seed": seed}
    (folder / TRUTH).write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


def _best_auc(parts: list[ClickRows]) -> dict[str, float]:
    table = pa.concat_tables([part.table for part in parts])
    scores = {
        "click": np.concatenate([part.click_N for part in parts]),
        "conversion": np.concatenate([part.conversion_N for part in parts]),
    }
    return {f"{name}_auc": auc(table[name].to_numpy() == 1, scores[name]) for name in LABELS}


def _num_positive(table: pa.Table, label: str) -> int:
    return int(np.count_nonzero(table[label].to_numpy()))


def _zipf_cumulative(num_ids: int) -> Floats:
    """P(rank <= k) for k = 0 … num_ids - 1, P(rank = k) in proportion to (k + 1)^-1.1."""
    share = np.arange(1, num_ids + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    cumulative = np.cumsum(share / share.sum())
    cumulative[-1] = 1.0
    return cumulative


def _root(increasing: Callable[[float], float]) -> float:
    """Where an increasing function is zero, between -30 and 30, to 2^-50 of that."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return (low + high) / 2


def _sigmoid(logit_N: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logit_N)))


def main() -> None:
    """Write the log and print what is known of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder of the three Parquet files")
    parser.add_argument(
        "--rows", type=int, default=2_000_000, help="of the three splits together (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default %(default)s)")
    options = parser.parse_args()
    for name, value in write_log(options.to, num_rows=options.rows, seed=options.seed).items():
        print(f"{name:16} {value:,.4f}" if isinstance(value, float) else f"{name:16} {value:,}")


if __name__ == "__main__":
    main()
