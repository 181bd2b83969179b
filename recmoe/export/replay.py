"""Replay: raw rows with the scores that the training model gave them, to prove that serving gives the same."""

# N rows, T tasks, F dense columns, K sparse keys

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from recmoe.errors import BundleError
from recmoe.export.contents import REPLAY_ENCODED, REPLAY_ROWS, REPLAY_SCORES
from recmoe.export.parquet_rows import read_rows
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import InputLayout

TOLERANCE = 1e-5
"""Largest difference of a prediction that passes; relative for predictions beyond ±1."""

MAX_ROWS = 100_000
"""Rows of a replay: it is scored at every start of a server."""
MAX_BYTES = 2**31
"""Of the rows in memory."""

_ENCODED = {"dense": (torch.float32, 2), "lengths": (torch.int32, 2), "values": (torch.int64, 1)}
"""By name: type and number of dimensions; ages come on top."""
_AGES = {"ages": (torch.float32, 1)}


@dataclass(frozen=True)
class Replay:
    """Rows of the log as they came, what the encoder made of them, and what the model predicted."""

    rows: pa.Table
    """N rows of raw columns."""
    task_names: tuple[str, ...]
    predictions_NT: NDArray[np.float64]
    encoded: dict[str, Tensor]
    """dense_NF, lengths_KN, values and, of sequences with times, ages: they tell which feature differs."""

    @classmethod
    def capture(
        cls, rows: pa.Table, *, encoder: FeatureEncoder, task_names: Sequence[str], predictions_NT: NDArray[np.floating]
    ) -> "Replay":
        """Rows with the predictions of the model in training, whichever back end and device it is on.

        Raises:
            BundleError: there are no rows, or too many.
        """
        assert predictions_NT.shape == (rows.num_rows, len(task_names)), predictions_NT.shape
        _check_count(rows.num_rows, "the replay", "give it some rows of the log")
        kept = [name for name in encoder.columns(with_labels=False) if name in rows.column_names]
        rows = rows.select(kept)
        return cls(
            rows=rows,
            task_names=tuple(task_names),
            predictions_NT=predictions_NT.astype(np.float64),
            encoded=_tensors(encoder.encode(rows, with_labels=False)),
        )

    def save(self, directory: Path) -> None:
        """Write it as Parquet and safetensors."""
        scores = {name: self.predictions_NT[:, index] for index, name in enumerate(self.task_names)}
        pq.write_table(self.rows, directory / REPLAY_ROWS)
        pq.write_table(pa.table(scores), directory / REPLAY_SCORES)
        (directory / REPLAY_ENCODED).write_bytes(safetensors.torch.save(self.encoded))

    @classmethod
    def load(cls, directory: Path) -> "Replay":
        """Read what ``save`` wrote.

        Raises:
            BundleError: it cannot be read, has no rows, or its parts do not fit each other.
        """
        try:
            rows, scores = (_read_table(directory / name) for name in (REPLAY_ROWS, REPLAY_SCORES))
            with _naming(directory / REPLAY_ENCODED):
                encoded = safetensors.torch.load_file(directory / REPLAY_ENCODED)
            _check_parts(rows, scores, encoded)
        except ValueError as error:
            raise BundleError(f"{directory}: its replay cannot be read: {error}; export the bundle again") from error
        columns = [column.to_numpy() for column in scores.columns]
        return cls(
            rows=rows,
            task_names=tuple(scores.column_names),
            predictions_NT=np.stack(columns, axis=1).astype(np.float64),
            encoded=encoded,
        )

    def check_features(self, batch: Batch, layout: InputLayout) -> None:
        """BundleError naming the first feature whose encoded rows are not what training saw."""
        found = _tensors(batch)
        for name in ("dense", "lengths"):
            if self.encoded[name].shape != found[name].shape or self.encoded.keys() != found.keys():
                raise BundleError(
                    f"replay: its encoded rows are of other features than the model's ({name} of shape "
                    f"{list(self.encoded[name].shape)}, should be {list(found[name].shape)}); export the bundle again"
                )
        for index, column in enumerate(layout.dense):
            before, now = self.encoded["dense"][:, index], found["dense"][:, index]
            if not torch.allclose(before, now, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                row = int((~torch.isclose(before, now, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)).nonzero()[0])
                raise BundleError(
                    f"replay: feature {column.feature} is encoded differently than in training: {column.name} of row "
                    f"{row} is {now[row]:g}, was {before[row]:g}; export the bundle again with this version"
                )
        before_keys, now_keys = _ids_by_key(self.encoded), _ids_by_key(found)
        for key, before, now in zip(layout.sparse, before_keys, now_keys, strict=True):
            if not torch.equal(before, now):
                raise BundleError(
                    f"replay: feature {key.feature} is encoded differently than in training: "
                    f"other rows of table {key.table}; export the bundle again with this version"
                )
        aged = [sequence.name for sequence in layout.sequences if sequence.has_ages]
        if aged and not torch.allclose(self.encoded["ages"], found["ages"], rtol=TOLERANCE, atol=TOLERANCE):
            raise BundleError(
                f"replay: feature {', '.join(aged)} is encoded differently than in training: other ages of entries; "
                "export the bundle again with this version"
            )

    def check_predictions(self, predictions_NT: NDArray[np.floating], *, tolerance: float = TOLERANCE) -> None:
        """BundleError naming the first task whose predictions are not the training model's."""
        expected_NT = self.predictions_NT
        difference_NT = relative_difference(predictions_NT, expected_NT)
        # Not "beyond": a comparison with NaN is false, and NaN must not pass.
        is_wrong_NT = ~(difference_NT <= tolerance)
        for index, name in enumerate(self.task_names):
            if is_wrong_NT[:, index].any():
                row = int(is_wrong_NT[:, index].argmax())
                raise BundleError(
                    f"replay: task {name} differs from the training model by more than {tolerance:g}: row {row} gives "
                    f"{predictions_NT[row, index]:.8g}, was {expected_NT[row, index]:.8g}; do not serve this bundle, "
                    "export it again"
                )


def relative_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> NDArray[np.floating]:
    """By how much numbers differ, as a part of what is expected; as it is where that is below 1."""
    difference: NDArray[np.floating] = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    return difference


def _check_count(num_rows: int, what: str, remedy: str) -> None:
    if not num_rows:
        raise BundleError(f"{what} has no rows, and proves nothing; {remedy}")
    if num_rows > MAX_ROWS:
        raise BundleError(f"{what} has {num_rows:,} rows, and may have {MAX_ROWS:,}; {remedy}")


def _read_table(path: Path) -> pa.Table:
    """A Parquet file of a bundle, if its size is within bounds."""
    with _naming(path):
        table = read_rows(path, max_bytes=MAX_BYTES)
    _check_count(table.num_rows, str(path), "export it again")
    return table


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Inside, a file is read; ValueError with its name where it cannot be."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException, SafetensorError) as error:
        # What Thrift says goes over several lines.
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from error


def _check_parts(rows: pa.Table, scores: pa.Table, encoded: Mapping[str, Tensor]) -> None:
    """ValueError where rows, predictions and encoded rows are not those of the same replay."""
    for table in (rows, scores):
        if len(set(table.column_names)) != table.num_columns:
            raise ValueError(f"two of its columns have the same name: {', '.join(table.column_names)}")
    if not scores.num_columns or any(not pa.types.is_floating(kind) for kind in scores.schema.types):
        raise ValueError(f"its predictions are of types {scores.schema.types}, not floats")
    kinds = {**_ENCODED, **(_AGES if "ages" in encoded else {})}
    if {name: (tensor.dtype, tensor.dim()) for name, tensor in encoded.items()} != kinds:
        raise ValueError(f"its encoded rows are not {', '.join(kinds)}")
    lengths_KN = encoded["lengths"].long()
    if (lengths_KN < 0).any() or lengths_KN.sum() != len(encoded["values"]):
        raise ValueError("the lengths of its encoded rows do not sum to their values")
    nums = {rows.num_rows, scores.num_rows, len(encoded["dense"]), lengths_KN.shape[1]}
    if len(nums) != 1:
        raise ValueError(f"its parts have {', '.join(map(str, sorted(nums)))} rows")


def _tensors(batch: Batch) -> dict[str, Tensor]:
    tensors = {
        "dense": batch.dense_BF.cpu().contiguous(),
        "lengths": batch.lengths_KB.cpu().contiguous(),
        "values": batch.values.cpu().contiguous(),
    }
    return tensors if batch.ages is None else {**tensors, "ages": batch.ages.cpu().contiguous()}


def _ids_by_key(encoded: dict[str, Tensor]) -> list[Tensor]:
    """Per sparse key: its lengths and ids in one vector, fit for comparison."""
    sizes = encoded["lengths"].sum(dim=1).tolist()
    values = torch.split(encoded["values"], sizes)
    return [torch.cat([lengths.long(), ids]) for lengths, ids in zip(encoded["lengths"], values, strict=True)]
