"""What somebody without recmoe would try first: logistic regression on one-hot ids, and gradient-boosted trees."""

# N rows, W columns of a one-hot matrix, C candidates

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recmoe.data.splits import SPLITS, Split

Floats = npt.NDArray[np.float64]
Kind = Literal["id", "list", "number"]

VERSION = 1
"""Part of the cache's keys: grows when the numbers would be others."""
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse of the L2 penalty; the best on validation is taken."""
NUM_BINS = 20
FEW_VALUES = 64
"""Numbers with no more values are one-hot by value."""
TREES: tuple[dict[str, Any], ...] = (
    {"num_leaves": 31, "learning_rate": 0.05, "min_child_samples": 20},
    {"num_leaves": 7, "learning_rate": 0.03, "min_child_samples": 50, "colsample_bytree": 0.8, "cat_smooth": 50.0},
)
MAX_TREES = 1000
PATIENCE = 50
BASELINES = ("logistic", "lightgbm")


@dataclass(frozen=True)
class Target:
    """What is predicted: labels by split, NaN in rows that do not count."""

    is_binary: bool
    labels: Mapping[Split, Floats]


@dataclass
class Outsiders:
    """Baselines over one split log; what was fitted before is read from the cache.

    Args:
        splits: the rows.
        columns: what the baselines read, and as what.
        cache_dir: folder of fitted predictions, by content of the rows.
    """

    splits: Mapping[Split, pa.Table]
    columns: Mapping[str, Kind]
    cache_dir: Path
    _one_hot: dict[Split, sparse.csr_matrix] = field(default_factory=dict)
    _frames: dict[Split, pd.DataFrame] = field(default_factory=dict)
    _digest: str = ""

    def predict(self, name: str, target: Target) -> Floats:
        """The test rows by a baseline, ``logistic`` or ``lightgbm``; fitted on train, chosen on validation."""
        path = self.cache_dir / f"{name}-{self._key(target)}.npy"
        if path.exists():
            cached_N: Floats = np.load(path)
            return cached_N
        predicted_N = self._linear(target) if name == "logistic" else self._trees(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, predicted_N)
        return predicted_N

    def _key(self, target: Target) -> str:
        if not self._digest:
            digest = hashlib.sha256(json.dumps([VERSION, sorted(self.columns.items())]).encode())
            for split in SPLITS:
                for column in sorted(self.columns):
                    values = self.splits[split][column].to_pandas()
                    parts = values.map(str) if self.columns[column] == "list" else values
                    digest.update(pd.util.hash_pandas_object(parts, index=False).to_numpy().tobytes())
            self._digest = digest.hexdigest()
        whole = hashlib.sha256(self._digest.encode())
        for split in SPLITS:
            whole.update(target.labels[split].tobytes())
        return whole.hexdigest()[:24]

    def _linear(self, target: Target) -> Floats:
        from sklearn.linear_model import LogisticRegression, Ridge

        if not self._one_hot:
            self._one_hot = one_hot(self.splits, self.columns)
        counts = {split: np.isfinite(target.labels[split]) for split in SPLITS}
        train, validation = (self._one_hot[split][counts[split]] for split in ("train", "validation"))
        train_N, validation_N = (target.labels[split][counts[split]] for split in ("train", "validation"))
        best_loss, best_N = np.inf, np.zeros(self.splits["test"].num_rows)
        for strength in STRENGTHS:
            if target.is_binary:
                model: Any = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
                model.fit(train, train_N)
                guess_N, test_N = (model.predict_proba(rows)[:, 1] for rows in (validation, self._one_hot["test"]))
            else:
                model = Ridge(alpha=3 / strength, solver="sparse_cg").fit(train, train_N)
                guess_N, test_N = (model.predict(rows) for rows in (validation, self._one_hot["test"]))
            loss = _loss(guess_N, validation_N, is_binary=target.is_binary)
            if loss < best_loss:
                best_loss, best_N = loss, test_N
        return best_N

    def _trees(self, target: Target) -> Floats:
        import lightgbm

        if not self._frames:
            self._frames = frames(self.splits, self.columns)
        rows = {
            split: (self._frames[split][is_known], target.labels[split][is_known])
            for split in SPLITS
            if (is_known := np.isfinite(target.labels[split])) is not None
        }
        best_loss, best_N = np.inf, np.zeros(self.splits["test"].num_rows)
        kind = lightgbm.LGBMClassifier if target.is_binary else lightgbm.LGBMRegressor
        for setting in TREES:
            model = kind(
                **setting, n_estimators=MAX_TREES, random_state=0, verbosity=-1,
                n_jobs=int(os.environ.get("OMP_NUM_THREADS", "2")),
            )  # fmt: skip
            model.fit(
                *rows["train"], eval_set=[rows["validation"]],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )  # fmt: skip
            guess_N, test_N = (
                model.predict_proba(frame)[:, 1] if target.is_binary else model.predict(frame)
                for frame in (rows["validation"][0], self._frames["test"])
            )
            loss = _loss(guess_N, rows["validation"][1], is_binary=target.is_binary)
            if loss < best_loss:
                best_loss, best_N = loss, test_N
        return best_N


def one_hot(splits: Mapping[Split, pa.Table], columns: Mapping[str, Kind]) -> dict[Split, sparse.csr_matrix]:
    """A column per value of an id, part of a list, and quantile bin of a number; what train has not is all zeros."""
    parts: dict[Split, list[sparse.csr_matrix]] = {split: [] for split in SPLITS}
    for name, kind in columns.items():
        pieces = {split: _pieces(splits[split][name], kind) for split in SPLITS}
        train = pd.Series(pieces["train"][1])
        if kind == "number":
            edges = _edges(train.to_numpy(dtype=float))
            pieces = {split: (row_N, np.digitize(values, edges)) for split, (row_N, values) in pieces.items()}
            known = pd.Index(np.arange(edges.size + 1))
        else:
            known = pd.Index(train.unique())
        for split, (row_N, values) in pieces.items():
            code_N = known.get_indexer(pd.Index(values))
            is_known_N = code_N >= 0
            matrix = sparse.csr_matrix(
                (np.ones(is_known_N.sum()), (row_N[is_known_N], code_N[is_known_N])),
                shape=(splits[split].num_rows, len(known)),
            )
            parts[split].append(matrix)
    return {split: sparse.hstack(parts[split], format="csr") for split in SPLITS}


def frames(splits: Mapping[Split, pa.Table], columns: Mapping[str, Kind]) -> dict[Split, pd.DataFrame]:
    """Ids and lists as categories of train, numbers as they are."""
    made: dict[Split, pd.DataFrame] = {split: pd.DataFrame() for split in SPLITS}
    for number, (name, kind) in enumerate(columns.items()):
        values = {split: splits[split][name].to_pandas() for split in SPLITS}
        if kind == "list":
            values = {split: series.map(str) for split, series in values.items()}
        known = pd.Index(values["train"].dropna().unique())
        for split in SPLITS:
            column = values[split] if kind == "number" else pd.Categorical(values[split], categories=known)
            # LightGBM takes few characters in names.
            made[split][f"c{number}"] = column.astype(float) if kind == "number" else column
    return made


def column_kind(column: pa.ChunkedArray) -> Kind:
    """What an outsider takes a column for: texts are ids, whole numbers with few values too."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "list"
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number and pc.count_distinct(column).as_py() > FEW_VALUES:
        return "number"
    return "id"


def _pieces(column: pa.ChunkedArray, kind: Kind) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Rows and the values in them; texts that hold parts with | or , between them are lists."""
    values = column.combine_chunks()
    if kind == "list":
        if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
            values = pc.split_pattern_regex(values, r"[|,;]")
        return pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values).to_pandas().to_numpy()
    if kind == "number":
        return np.arange(len(values)), values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    is_known = pc.is_valid(values)
    return np.flatnonzero(is_known.to_numpy(zero_copy_only=False)), values.filter(is_known).to_pandas().to_numpy()


def _edges(train_N: Floats) -> Floats:
    """Between quantile bins; NaN is greater than the last one, so it has the last bin with the greatest numbers."""
    finite_N = train_N[np.isfinite(train_N)]
    if not finite_N.size:
        return np.zeros(1)
    edges: Floats = np.unique(np.quantile(finite_N, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    return np.append(edges, finite_N.max() + 1.0)


def _loss(guess_N: Floats, label_N: Floats, *, is_binary: bool) -> float:
    if not is_binary:
        return float(((guess_N - label_N) ** 2).mean())
    safe_N = np.clip(guess_N, 1e-7, 1 - 1e-7)
    return float(-(label_N * np.log(safe_N) + (1 - label_N) * np.log(1 - safe_N)).mean())


def outsider_columns(
    train: pa.Table, *, left_out: Sequence[str], feature_kinds: Mapping[str, str] | None = None
) -> dict[str, Kind]:
    """What the baselines read: every column but those left out, as the model reads it where it does.

    Args:
        left_out: outcomes, times and numbers of rows.
        feature_kinds: ``id``, ``id_list`` or ``numeric`` by column.
    """
    kinds: dict[str, Kind] = {}
    for name in train.column_names:
        if name in left_out:
            continue
        told = (feature_kinds or {}).get(name)
        kinds[name] = "id" if told == "id" else "list" if told == "id_list" else column_kind(train[name])
    return kinds
