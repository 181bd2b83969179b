"""The shadow ranks copies of requests beside, and its scores are compared."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.clock import Clock
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.stages import AnyDecoded
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.metrics import ModelMetrics
from serving.models.shadow import ShadowComparison
from serving.settings import ServeSettings

REQUEST = RankRequest(
    user={"user_id": "u3"}, candidates=[{"item_id": number, "price": number} for number in range(100, 120)], top_k=5
)


class Slow(Ranker):
    """Ranks when it may."""

    def __init__(self, bundle: ModelBundle, **changes: Any) -> None:
        super().__init__(bundle, **changes)
        self.may_rank = threading.Event()
        self.num_ranked = 0

    def rank_columns(
        self, requests: Sequence[AnyDecoded], *, clock: Clock | None = None
    ) -> list[Ranked | RequestError]:
        assert self.may_rank.wait(300)
        self.num_ranked += 1
        return super().rank_columns(requests, clock=clock)


def ranked(ranker: Ranker, request: RankRequest = REQUEST) -> Ranked:
    (found,) = ranker.rank_columns([ranker.decode(request)])
    assert isinstance(found, Ranked)
    return found


class Compared:
    """A comparison whose metrics are read."""

    def __init__(self, share: float) -> None:
        self._registry = CollectorRegistry()
        self.comparison = ShadowComparison(share=share, metrics=ModelMetrics(self._registry))

    def page(self) -> str:
        """After all comparisons."""
        self.comparison.close()
        return generate_latest(self._registry).decode()


def with_scores(bundle: ModelBundle, formula: str) -> Ranker:
    config = {**bundle.config, "ranking": {"scores": {"profit": formula}}}
    return Ranker(ModelBundle(**{**vars(bundle), "config": config}), version="5")


def test_differences_of_scores_and_the_agreement_of_the_first_items_are_measured(
    bundle: ModelBundle, number: Any
) -> None:
    champion, shifted, reversed_ = (with_scores(bundle, text) for text in ("ctr", "ctr + 0.02", "0 - ctr"))
    found = Compared(1.0)

    found.comparison.offer(shifted, REQUEST, ranked(champion))
    found.comparison.offer(reversed_, REQUEST, ranked(champion))
    page = found.page()

    # The first five of the champion are the first five of the one and the last five of the other.
    assert number(page, 'recmoe_shadow_requests_total{outcome="ranked"') == 2
    assert number(page, "recmoe_shadow_score_difference_count") == 40
    assert number(page, 'recmoe_shadow_score_difference_bucket{le="0.01"') == 0
    assert number(page, 'recmoe_shadow_score_difference_bucket{le="0.03"') >= 20
    assert number(page, "recmoe_shadow_top_agreement_count") == 2
    assert number(page, "recmoe_shadow_top_agreement_sum") == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_share_of_the_requests_is_copied(ranker: Ranker, number: Any, share: float) -> None:
    found = Compared(share)
    answer = ranked(ranker)

    for _ in range(50):
        found.comparison.offer(ranker, REQUEST, answer)
        found.comparison.offer(None, REQUEST, answer)
    page = found.page()

    outcomes = [number(page, f'recmoe_shadow_requests_total{{outcome="{name}"') for name in ("ranked", "dropped")]
    assert sum(outcomes) == 50 * share


def test_what_finds_no_room_is_dropped_and_counted(bundle: ModelBundle, ranker: Ranker, number: Any) -> None:
    found, slow = Compared(1.0), Slow(bundle)
    answer = ranked(ranker)

    for _ in range(40):
        found.comparison.offer(slow, REQUEST, answer)
    slow.may_rank.set()
    page = found.page()

    # Sixteen wait, and one may be under way.
    assert slow.num_ranked in (16, 17)
    assert number(page, 'recmoe_shadow_requests_total{outcome="ranked"') == slow.num_ranked
    assert number(page, 'recmoe_shadow_requests_total{outcome="dropped"') == 40 - slow.num_ranked


def test_request_that_the_shadow_cannot_answer_is_counted_and_logged_without_its_values(
    bundle: ModelBundle, ranker: Ranker, number: Any, caplog: pytest.LogCaptureFixture
) -> None:
    strict = Ranker(bundle, strict_fields=True)
    other = REQUEST.model_copy(update={"context": {"device": "phone"}})
    found = Compared(1.0)
    with pytest.raises(RequestError, match="device"):
        strict.rank(other)

    with caplog.at_level(logging.INFO):
        found.comparison.offer(strict, other, ranked(ranker, other))
        page = found.page()

    assert number(page, 'recmoe_shadow_requests_total{outcome="error"') == 1
    assert caplog.messages == ["the shadow, version None, failed: it refuses context.device"]


def test_answers_do_not_wait_for_the_shadow(bundle: ModelBundle, ranker: Ranker, serve_app: Any, ask: Any) -> None:
    slow = Slow(bundle, version="5")
    models = ServedModels(lambda: ranker)
    models.load()
    models.use("shadow", slow)

    with serve_app(create_app(models, ServeSettings(shadow_share=1.0))) as url:
        versions = [ask(f"{url}/v1/rank", REQUEST.model_dump()).document["model"]["version"] for _ in range(3)]
        num_ranked = slow.num_ranked
        slow.may_rank.set()
        roles = [(model["role"], model["version"]) for model in ask(f"{url}/v1/models").document]

    assert versions == ["4", "4", "4"]
    assert num_ranked == 0
    assert slow.num_ranked == 3
    assert roles == [("champion", "4"), ("shadow", "5")]
