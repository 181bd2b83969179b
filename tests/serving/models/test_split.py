"""The challenger answers a share of the users, and always the same ones."""

from collections.abc import Iterator
from typing import Any

import pytest

from recmoe.errors import ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.split import UserSplit

CANDIDATES = [{"item_id": 101, "price": 3.5}, {"item_id": 102}]


def request_of(user: Any) -> RankRequest:
    return RankRequest(user={"user_id": user}, candidates=CANDIDATES)


def arms(split: UserSplit, num_users: int = 10_000) -> list[str]:
    return [split.arm(request_of(f"u{number}")) for number in range(num_users)]


def test_share_of_the_users_is_met_and_a_larger_one_keeps_those_of_a_smaller_one() -> None:
    small, large = (arms(UserSplit(share=share, column="user_id")) for share in (0.1, 0.3))

    # Five standard deviations of a draw of 10,000.
    assert small.count("challenger") == pytest.approx(1000, abs=150)
    assert large.count("challenger") == pytest.approx(3000, abs=230)
    assert all(arm == "challenger" for arm, before in zip(large, small, strict=True) if before == "challenger")


def test_share_of_all_is_all_and_of_none_is_none() -> None:
    assert set(arms(UserSplit(share=1, column="user_id"), 100)) == {"challenger"}
    assert set(arms(UserSplit(share=0, column="user_id"), 100)) == {"champion"}


def test_number_and_its_digits_are_one_user() -> None:
    split = UserSplit(share=0.5, column="user_id")

    for number in range(50):
        assert len({split.arm(request_of(user)) for user in (number, str(number), float(number))}) == 1


@pytest.mark.parametrize("user", [None, [1], {}, float("nan")])
def test_request_without_a_user_is_the_champions(user: Any) -> None:
    split = UserSplit(share=1, column="user_id")

    assert split.arm(request_of(user)) == ("challenger" if user != user else "no_user")
    assert split.arm(RankRequest(candidates=CANDIDATES)) == "no_user"


def test_column_is_the_only_id_of_a_user(ranker: Ranker, ids_bundle: ModelBundle) -> None:
    split = UserSplit(share=1, column=None)
    split.settle(ranker)

    assert split.arm(request_of("u1")) == "challenger"
    UserSplit(share=0, column=None).settle(Ranker(ids_bundle))
    UserSplit(share=1, column="account").settle(Ranker(ids_bundle))
    with pytest.raises(
        ServingError,
        match="challenger_share: the model has several ids of a user: user_id, account; set split_by to the column",
    ):
        UserSplit(share=1, column=None).settle(Ranker(ids_bundle))


@pytest.fixture
def url(ranker: Ranker, bundle: ModelBundle, serve_app: Any) -> Iterator[str]:
    models = ServedModels(lambda: ranker, split=UserSplit(share=0.5, column="user_id"))
    models.load()
    models.use("challenger", Ranker(bundle, version="5"))
    with serve_app(create_app(models)) as url:
        yield url


def test_user_meets_one_version_which_the_answer_and_the_metrics_name(url: str, ask: Any, number: Any) -> None:
    split = UserSplit(share=0.5, column="user_id")
    users = [f"u{number % 20}" for number in range(60)]

    met = [
        ask(f"{url}/v1/rank", {"user": {"user_id": user}, "candidates": CANDIDATES}).document["model"]["version"]
        for user in users
    ]
    nobody = ask(f"{url}/v1/rank", {"candidates": CANDIDATES}).document["model"]["version"]
    page, models = ask(f"{url}/metrics").text, ask(f"{url}/v1/models").document

    assert met == ["5" if split.arm(request_of(user)) == "challenger" else "4" for user in users]
    assert set(met) == {"4", "5"}
    assert nobody == "4"
    assert number(page, 'recmoe_split_requests_total{arm="challenger"') == met.count("5")
    assert number(page, 'recmoe_split_requests_total{arm="champion"') == met.count("4")
    assert number(page, 'recmoe_split_requests_total{arm="no_user"') == 1
    assert number(page, 'recmoe_rank_requests_total{code="200",model="shop",version="5"') == met.count("5")
    assert [(model["role"], model["version"]) for model in models] == [("champion", "4"), ("challenger", "5")]
