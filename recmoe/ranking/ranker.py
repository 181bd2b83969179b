"""Ranker: a request → items in the order to show them."""

# N flat rows, R requests, C candidates of all requests, T tasks

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from recmoe.errors import BundleError, ConfigError, DataError, RequestError, SchemaError
from recmoe.export.bundle import ModelBundle
from recmoe.features.batch import Batch
from recmoe.features.layout import SHARED_SIDES, Side
from recmoe.json_document import first_problem
from recmoe.ranking.columns import OWN_SIDES, ROW, DecodedRequest, RequestDecoder
from recmoe.ranking.request import FeatureWarning, ModelInfo, RankedItem, RankRequest, RankResponse, ScoreInfo
from recmoe.ranking.score import RankingConfig, ScoreFormula, unknown_name
from recmoe.ranking.values import RequestColumn
from recmoe.ranking.warning_counter import WarningCounter

_CHUNK_ROWS = 8192
"""Flat rows per forward pass: enough to keep the cores busy, little memory."""


class Ranker:
    """Ranks with the model of a bundle. Holds no state of requests: threads may share it.

    Args:
        bundle: the model; its replay is checked by ``load``, not here.
        name: what it is registered as; by default the bundle's name.
        version: its version in the registry.
        strict_fields: whether a field that the model does not know is an error, whatever the bundle's config says.
    """

    def __init__(
        self, bundle: ModelBundle, *, name: str | None = None, version: str | None = None, strict_fields: bool = False
    ) -> None:
        try:
            config = RankingConfig.model_validate(bundle.config.get("ranking", {}))
            self.scores = config.build(bundle.tasks.names)
        except (ValidationError, ConfigError) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else error
            raise BundleError(f"bundle {bundle.name}: its ranking section is not valid: {reason}") from error
        if strict_fields:
            config = config.model_copy(update={"unknown_fields": "error"})
        self.bundle = bundle
        self.info = ModelInfo(name=name or bundle.name, version=version, digest=bundle.digest)
        self.task_names = bundle.tasks.names
        self.config = config
        """Limits of a request."""
        self._decoder = RequestDecoder(bundle.encoder, config)
        self._warnings = WarningCounter(bundle.encoder)

    @classmethod
    def load(
        cls,
        source: Path | ModelBundle,
        *,
        name: str | None = None,
        version: str | None = None,
        strict_fields: bool = False,
    ) -> "Ranker":
        """A ranker that has proved itself: the replay gave the training model's scores, flat and as requests.

        Raises:
            BundleError: the bundle is damaged, or a feature or task (named) differs.
        """
        bundle = source if isinstance(source, ModelBundle) else ModelBundle.load(source)
        ranker = cls(bundle, name=name, version=version, strict_fields=strict_fields)
        bundle.check_replay()
        rows = bundle.replay.rows.append_column(ROW, pa.array(range(bundle.replay.rows.num_rows)))
        bundle.replay.check_predictions(ranker._predict_sided(rows, rows, np.arange(rows.num_rows)))
        return ranker

    @property
    def request_columns(self) -> Mapping[Side, Mapping[str, RequestColumn]]:
        """Columns that a request may give, by side."""
        return self._decoder.columns

    def rank(self, request: RankRequest) -> RankResponse:
        """Order the candidates of one request.

        Raises:
            RequestError: a field does not fit; it is named.
        """
        return self.rank_many([request])[0]

    def rank_many(self, requests: Sequence[RankRequest]) -> list[RankResponse]:
        """Order the candidates of several requests in one forward pass; each as if it came alone.

        Raises:
            RequestError: a field of one of them does not fit.
        """
        clock = _Clock()
        chosen = [self._check(request) for request in requests]
        decoded = [self._decoder.decode(request) for request in requests]
        request_C = np.repeat(np.arange(len(requests)), [request.num_candidates for request in requests])
        shared = pa.concat_tables([request.shared for request in decoded])
        own = pa.concat_tables([request.own for request in decoded])
        clock.stage("decode")
        shared_batch = self._encode(shared, SHARED_SIDES, field="user")
        own_batch = self._encode(own, OWN_SIDES, field="candidates")
        warnings = self._warnings.count(
            (shared, shared_batch, np.arange(len(requests))), (own, own_batch, request_C), num_requests=len(requests)
        )
        clock.stage("features")
        with torch.inference_mode():
            predictions_CT = self.bundle.model.predict_sided(shared_batch, own_batch, torch.from_numpy(request_C))
        clock.stage("model")
        ends = np.cumsum([request.num_candidates for request in requests])[:-1]
        parts = np.split(predictions_CT.numpy().astype(np.float64), ends)
        orders = [
            self._order(request, ids, predictions, formula)
            for request, ids, predictions, (_, formula) in zip(requests, decoded, parts, chosen, strict=True)
        ]
        clock.stage("score")
        timing_ms = clock.timing_ms()
        return [
            RankResponse(
                request_id=request.request_id,
                model=self.info,
                score=ScoreInfo(name=name, formula=formula.text),
                items=items,
                warnings=[*self._ignored(request_decoded), *found, *not_finite],
                timing_ms=timing_ms,
            )
            for request, request_decoded, (name, formula), found, (items, not_finite) in zip(
                requests, decoded, chosen, warnings, orders, strict=True
            )
        ]

    def score(self, rows: pa.Table) -> NDArray[np.float32]:
        """predictions_NT of flat rows that hold the columns of all sides, as a log does."""
        starts = range(0, rows.num_rows, _CHUNK_ROWS)
        parts = [self.bundle.predict(rows.slice(start, _CHUNK_ROWS)) for start in starts]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.task_names)), np.float32)

    def combine(self, predictions_NT: NDArray[np.floating[Any]], *, score: str | None = None) -> NDArray[np.float64]:
        """score_N by a formula, the default one where none is named; RequestError if there is none of that name."""
        return self.scores.choose(score)[1].evaluate(self._by_task(predictions_NT))

    def _check(self, request: RankRequest) -> tuple[str, ScoreFormula]:
        """The formula that a request asks for, once its tasks and its size are known to be right."""
        request.limited_to(self.config.max_candidates)
        for index, task in enumerate(request.tasks or ()):
            if task not in self.task_names:
                raise RequestError(f"tasks[{index}]", unknown_name("task", task, self.task_names))
        return self.scores.choose(request.score)

    def _ignored(self, decoded: DecodedRequest) -> list[FeatureWarning]:
        return [
            FeatureWarning(feature=name, code="unknown_field", count=count, hint=self._decoder.hint(name))
            for name, count in decoded.ignored.items()
        ]

    def _encode(self, table: pa.Table, sides: Collection[Side], *, field: str) -> Batch:
        """Columns of requests; what the encoder refuses of them is the request's fault."""
        try:
            return self.bundle.encoder.encode(table, sides=sides, with_labels=False)
        except (DataError, SchemaError) as error:
            raise RequestError(field, str(error)) from error

    def _predict_sided(self, shared: pa.Table, own: pa.Table, request_C: NDArray[np.int64]) -> NDArray[np.float32]:
        encoder = self.bundle.encoder
        with torch.inference_mode():
            predictions_CT = self.bundle.model.predict_sided(
                encoder.encode(shared, sides=SHARED_SIDES, with_labels=False),
                encoder.encode(own, sides=OWN_SIDES, with_labels=False),
                torch.from_numpy(request_C),
            )
        result: NDArray[np.float32] = predictions_CT.numpy()
        return result

    def _order(
        self, request: RankRequest, decoded: DecodedRequest, predictions_CT: NDArray[np.float64], formula: ScoreFormula
    ) -> tuple[list[RankedItem], list[FeatureWarning]]:
        """Items by falling score, ties by rising id; what has no finite score stands last and is warned of."""
        score_C = formula.evaluate(self._by_task(predictions_CT))
        is_finite_C = np.isfinite(score_C)
        scores = pa.array(score_C, mask=~is_finite_C)
        keys = pa.table({"score": scores, "item": decoded.item_keys})
        order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("item", "ascending")]).to_numpy()
        order = order[: request.top_k]
        names = list(dict.fromkeys(request.tasks or self.task_names))
        columns = [self.task_names.index(name) for name in names]
        items = [
            RankedItem(decoded.item_ids[place], score, dict(zip(names, row, strict=True)))
            for place, score, row in zip(
                order.tolist(),
                scores.take(order).to_pylist(),
                predictions_CT[order][:, columns].tolist(),
                strict=True,
            )
        ]
        num_lost = int((~is_finite_C).sum())
        lost = [FeatureWarning(feature=formula.text, code="not_finite", count=num_lost)] if num_lost else []
        return items, lost

    def _by_task(self, predictions_NT: NDArray[np.floating[Any]]) -> Mapping[str, NDArray[np.float64]]:
        return {name: predictions_NT[:, index].astype(np.float64) for index, name in enumerate(self.task_names)}


class _Clock:
    """Milliseconds per stage of one call."""

    def __init__(self) -> None:
        self._start_s = self._last_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """The stage that ends now."""
        now_s = time.perf_counter()
        self._stages_ms[name] = (now_s - self._last_s) * 1000
        self._last_s = now_s

    def timing_ms(self) -> dict[str, float]:
        times_ms = {**self._stages_ms, "total": (self._last_s - self._start_s) * 1000}
        return {name: round(time_ms, 3) for name, time_ms in times_ms.items()}
