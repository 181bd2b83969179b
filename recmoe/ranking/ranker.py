"""Ranker: a request → items in the order to show them."""

# N flat rows, R requests, C candidates of all requests, T tasks

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from recmoe.errors import BundleError, ConfigError, RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.features.blocks import concatenated
from recmoe.features.columns import plain_type
from recmoe.features.layout import Side
from recmoe.json_document import first_problem
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import AnyRequest, RequestDecoder, options_of
from recmoe.ranking.engine import build_engine, explaining
from recmoe.ranking.explain import Explainer
from recmoe.ranking.feature_warnings import FeatureWarnings
from recmoe.ranking.items.candidate_rows import CandidateRows, EncodedCandidates
from recmoe.ranking.items.candidates import StoredItems
from recmoe.ranking.items.known import keep_products, known_candidates
from recmoe.ranking.items.store import RowStore
from recmoe.ranking.items.users import StoredUsers
from recmoe.ranking.precision import TOLERANCES, Precision
from recmoe.ranking.ranked import Ranked, order_of
from recmoe.ranking.replay import check_replay
from recmoe.ranking.request import ModelInfo, RankRequest, RankResponse, ScoreInfo, check_num_candidates
from recmoe.ranking.score import RankingConfig, unknown_name
from recmoe.ranking.stages import AnyDecoded, EncodedRequest, attempt, decode, encode, request_of
from recmoe.ranking.values import RequestColumn

_CHUNK_ROWS = 8192
"""Flat rows per forward pass: enough to keep the cores busy, little memory."""


class Ranker:
    """Ranks with the model of a bundle. Holds no state of requests: threads may share it.

    Args:
        bundle: the model; its replay is checked by ``load``, not here.
        name: what it is registered as; by default the bundle's name.
        version: its version in the registry.
        strict_fields: whether a field that the model does not know is an error, whatever the bundle's config says.
        precision: of matrix products.
        device: ``cpu``, ``cuda`` or ``cuda:N``: where candidates are ranked; explanations are made on the CPU.
        batch_candidates: see ``build_engine``.

    Raises:
        BundleError: its section ``ranking`` is not valid.
        ServingError: the device is not there, or has no bf16 arithmetic.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        name: str | None = None,
        version: str | None = None,
        strict_fields: bool = False,
        precision: Precision = "fp32",
        device: str = "cpu",
        batch_candidates: int | None = None,
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
        self.precision = precision
        self.engine = build_engine(bundle.model, device=device, precision=precision, batch_candidates=batch_candidates)
        self.info = ModelInfo(name=name or bundle.name, version=version, digest=bundle.digest)
        self.task_names = bundle.tasks.names
        self.config = config
        """Limits of a request."""
        self._decoder = RequestDecoder(bundle.encoder, config)
        model, of_products = explaining(self.engine, bundle.model, precision)
        self.explainer = Explainer(model, bundle.encoder, self._decoder, of_products)
        """Says what makes predictions, of requests that ask for it and of flat rows."""
        self._warnings = FeatureWarnings(bundle.encoder)
        self.items: StoredItems | None = None
        """Items whose columns requests may leave out; see ``with_stores``."""
        self.users: StoredUsers | None = None
        """Users whose columns requests may leave out."""

    @classmethod
    def load(
        cls,
        source: Path | ModelBundle,
        *,
        name: str | None = None,
        version: str | None = None,
        strict_fields: bool = False,
        precision: Precision = "fp32",
        device: str = "cpu",
        batch_candidates: int | None = None,
        items: RowStore | None = None,
        items_known_bytes: int = 0,
        users: RowStore | None = None,
    ) -> "Ranker":
        """A ranker that has proved itself: the replay gave the training model's scores, flat and as requests.

        Args:
            items, items_known_bytes, users: see ``with_stores``; the others are the ranker's own.

        Raises:
            BundleError: the bundle is damaged, or a feature or task (named) differs.
            SchemaError, DataError, StoreError: see ``with_stores``.
        """
        bundle = source if isinstance(source, ModelBundle) else ModelBundle.load(source)
        ranker = cls(
            bundle,
            name=name,
            version=version,
            strict_fields=strict_fields,
            precision=precision,
            device=device,
            batch_candidates=batch_candidates,
        )
        bundle.check_replay()
        ranker.engine.warm_up(*check_replay(bundle, ranker._decoder, ranker.engine.predict, TOLERANCES[precision]))
        return ranker.with_stores(items=items, items_known_bytes=items_known_bytes, users=users)

    def with_stores(
        self, *, items: RowStore | None = None, items_known_bytes: int = 0, users: RowStore | None = None
    ) -> "Ranker":
        """A ranker of the same model that looks in these stores. This one stays as it is.

        Args:
            items, users: stores of them, whose columns a request may leave out.
            items_known_bytes: room for what items, the first ones of the store, give in the model's first products,
                which is then computed here and not for every request.

        Raises:
            SchemaError, DataError: a store is not one for this model, or damaged.
            ServingError: products that are kept change predictions.
            StoreError: a store does not answer.
        """
        ranker = copy.copy(self)
        if users is not None and (self.users is None or users is not self.users.store):
            ranker._take_users(users)
        if items is not None and (self.items is None or items is not self.items.store):
            ranker._take_items(items, items_known_bytes)
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
        (answer,) = self.rank_many([request])
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def rank_many(self, requests: Sequence[RankRequest]) -> list[RankResponse | RequestError]:
        """Order the candidates of several requests in one forward pass; each as if it came alone.

        Returns:
            The answer to each request, or what of it does not fit.
        """
        clock = Clock()
        decoded = [attempt(self.decode, request) for request in requests]
        clock.stage("decode")
        ranked = iter(self.rank_columns([one for one in decoded if not isinstance(one, RequestError)], clock=clock))
        answers = [one if isinstance(one, RequestError) else next(ranked) for one in decoded]
        return [one.explained().response() if isinstance(one, Ranked) else one for one in answers]

    def decode(self, request: AnyRequest) -> AnyDecoded:
        """The raw columns of a request.

        Raises:
            RequestError: a field does not fit; it is named.
            StoreError: a store does not answer.
        """
        check_num_candidates(request.num_candidates, self.config.max_candidates)
        options = options_of(request)
        for index, task in enumerate(options.tasks or ()):
            if task not in self.task_names:
                raise RequestError(f"tasks[{index}]", unknown_name("task", task, self.task_names))
        self.scores.choose(options.score)
        return decode(request, self._decoder, items=self.items, users=self.users)

    def rank_columns(
        self, requests: Sequence[AnyDecoded], *, clock: Clock | None = None
    ) -> list[Ranked | RequestError]:
        """Score and order the candidates of several requests in one forward pass, whatever they were written in.

        Args:
            requests: as ``decode`` gives them.
            clock: has the stages before this one.

        Returns:
            What the answer to each request is made of, or what of it does not fit.
        """
        clock = clock or Clock()
        encoded = [attempt(self._encode, one) for one in requests]
        clock.stage("features")
        good = [one for one in encoded if isinstance(one, EncodedRequest)]
        predictions = iter(self._predict_all(good) if good else [])
        clock.stage("model")
        ranked = [
            one if isinstance(one, RequestError) else self._ranked(one, next(predictions), clock) for one in encoded
        ]
        clock.stage("score")
        return ranked

    def score(self, rows: pa.Table) -> NDArray[np.float32]:
        """predictions_NT of flat rows that hold the columns of all sides, as a log does."""
        starts = range(0, rows.num_rows, _CHUNK_ROWS)
        parts = [self.bundle.predict(rows.slice(start, _CHUNK_ROWS)) for start in starts]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.task_names)), np.float32)

    def combine(self, predictions_NT: NDArray[np.floating[Any]], *, score: str | None = None) -> NDArray[np.float64]:
        """score_N by a formula, the default one where none is named; RequestError if there is none of that name."""
        return self.scores.choose(score)[1].evaluate(self._by_task(predictions_NT))

    def _encode(self, columns: AnyDecoded) -> EncodedRequest:
        shared, own = encode(self._decoder.shared.encode, columns.shared, field="user"), columns.own
        if isinstance(own, CandidateRows):
            assert self.items is not None
            return EncodedRequest(columns, shared, encode(self.items.encode, own, field="candidates"))
        rows = encode(self._decoder.own.encode, own, field="candidates")
        return EncodedRequest(columns, shared, EncodedCandidates(rows))

    def _predict_all(self, encoded: Sequence[EncodedRequest]) -> list[NDArray[np.float64]]:
        """predictions_CT of each of several requests."""
        counts = [one.own.num_rows for one in encoded]
        shared = concatenated([one.shared.batch for one in encoded], self._decoder.shared.layout)
        own = concatenated([one.own.rows.batch for one in encoded], self._decoder.own.layout)
        items = None if self.items is None else self.items.known
        known = None if items is None else known_candidates(items, [one.own for one in encoded])
        predictions_CT = self.engine.predict(shared, own, request_of(counts), known)
        of_request = np.split(predictions_CT.astype(np.float64), np.cumsum(counts)[:-1])
        return [one.own.in_request_order(found_CT) for one, found_CT in zip(encoded, of_request, strict=True)]

    def _take_users(self, store: RowStore) -> None:
        """Use a store from now on."""
        key = store.column, plain_type(store.columns.field(store.column).type)
        self._decoder = RequestDecoder(self.bundle.encoder, self.config, user_key=key)
        self.users = StoredUsers(store, self.bundle.encoder, self._decoder)

    def _take_items(self, store: RowStore, known_bytes: int) -> None:
        """Use a store from now on; what its first items give is computed, and compared with what it is in a request."""
        self.items = StoredItems(store, self.bundle.encoder, self._decoder)
        first = self.bundle.replay.rows.slice(0, 1)
        shared = self._decoder.shared.encode(self._decoder.shared.of_table(first)).batch
        tolerance = TOLERANCES[self.precision]
        self.items.know(keep_products(self.engine, self.items, shared, max_bytes=known_bytes, tolerance=tolerance))

    def _ranked(self, encoded: EncodedRequest, predictions_CT: NDArray[np.float64], clock: Clock) -> Ranked:
        """Candidates in order; a score that is not finite is warned of."""
        columns, options = encoded.columns, encoded.columns.options
        name, formula = self.scores.choose(options.score)
        score_C = formula.evaluate(self._by_task(predictions_CT))
        scores = pa.array(score_C, mask=~np.isfinite(score_C))
        task_names = list(dict.fromkeys(options.tasks or self.task_names))
        order_K = order_of(scores, columns.item_keys, top_k=options.top_k)
        explain = partial(self.explainer.of_request, encoded, order_K, task_names, self.items)
        return Ranked(
            request_id=options.request_id,
            model=self.info,
            score=ScoreInfo(name=name, formula=formula.text),
            task_names=task_names,
            predictions_CT=predictions_CT[:, [self.task_names.index(task) for task in task_names]],
            score_C=scores,
            order_K=order_K,
            item_ids=columns.item_ids,
            item_keys=columns.item_keys,
            warnings=self._warnings.of(
                encoded,
                stores={"users": self.users, "items": self.items},
                hint=self._decoder.hint,
                lost={formula.text: scores.null_count},
            ),
            look_ups=columns.look_ups,
            clock=clock,
            explain=explain if options.explain else None,
        )

    def _by_task(self, predictions_NT: NDArray[np.floating[Any]]) -> Mapping[str, NDArray[np.float64]]:
        return {name: predictions_NT[:, index].astype(np.float64) for index, name in enumerate(self.task_names)}
