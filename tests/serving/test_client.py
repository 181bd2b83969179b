"""The client and a real server: what the ranker ranks is what the caller gets."""

import re
import threading
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import recmoe.client as typed
from recmoe.client import RankClient, Ranking
from recmoe.errors import RequestError
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking import request as ranking_request
from serving import description
from serving.models.refusal import Refusal

README = (Path(__file__).parents[2] / "README.md").read_text()
REQUEST: dict[str, Any] = {
    "user": {"user_id": "u3", "age": 40},
    "context": {"hour": 12},
    "candidates": [{"item_id": 101, "price": 3.5}, {"item_id": 102}, {"item_id": 999, "price": 1}],
    "top_k": 2,
    "request_id": "r1",
}


def test_ranking_is_that_of_the_ranker(url: str, ranker: Ranker) -> None:
    with RankClient(url) as client:
        ranking = client.rank(**REQUEST)

    found = asdict(ranking)
    expected = ranker.rank(RankRequest.parse(REQUEST)).model_dump()
    assert found.pop("timing_ms").keys() == expected.pop("timing_ms").keys()
    assert [item.pop("explanation") for item in found["items"]] == [None, None]
    assert {**found, "warnings": []} == {**expected, "warnings": []}
    told = [{name: value for name, value in one.items() if value is not None} for one in found["warnings"]]
    assert told == expected["warnings"]


def test_columns_tasks_and_score_are_asked_for(url: str) -> None:
    columns = {"item_id": [101, 102, 103], "price": [1, 2, None]}
    with RankClient(url) as client:
        ranking = client.rank(candidates=columns, tasks=["cvr"], score="ctr")

    assert ranking.score.name == "ctr"
    assert [set(item.tasks) for item in ranking.items] == [{"cvr"}] * 3


def test_wrong_field_is_named(url: str) -> None:
    with RankClient(url) as client, pytest.raises(RequestError, match="expected a finite number, found NaN") as wrong:
        client.rank(candidates=[{"item_id": 1, "price": float("nan")}])

    assert wrong.value.field == "candidates[0].price"


def test_model_and_health_are_told(url: str, ranker: Ranker) -> None:
    with RankClient(url) as client:
        model, health, ready = client.model(), client.health(), client.ready()

    assert asdict(model) == description.describe(ranker).model_dump()
    assert health.is_ok
    assert ready.is_ok


def test_threads_get_each_their_own_ranking(url: str) -> None:
    rankings: dict[int, list[Ranking]] = {}

    def ask(number: int) -> None:
        rankings[number] = [
            client.rank(candidates=[{"item_id": 100 + number}], request_id=f"r{number}") for _ in range(10)
        ]

    with RankClient(url, timeout_s=60) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for number, own in rankings.items():
        assert [ranking.request_id for ranking in own] == [f"r{number}"] * 10
        assert {ranking.items[0].item_id for ranking in own} == {100 + number}
    assert len(rankings) == 8


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (typed.Ranking, ranking_request.RankResponse),
        (typed.ModelInfo, ranking_request.ModelInfo),
        (typed.ScoreInfo, ranking_request.ScoreInfo),
        (typed.FeatureWarning, ranking_request.FeatureWarning),
        (typed.ServedModel, description.ServedModel),
        (typed.ServedTask, description.ServedTask),
        (typed.Refusal, Refusal),
    ],
)
def test_types_of_the_client_are_those_of_the_server(ours: Any, theirs: type[BaseModel]) -> None:
    assert {field.name for field in fields(ours)} == set(theirs.model_fields)


def test_items_of_the_client_are_those_of_the_server() -> None:
    ours = [field.name for field in fields(typed.RankedItem)]

    assert ours == [field.name for field in fields(ranking_request.RankedItem)]


def test_readme_shows_a_call_that_works(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "RankClient" in block)
    # A machine with much to do may take longer than a product would wait.
    code = block.replace("http://localhost:8000", url).replace("deadline_ms=50", "deadline_ms=50_000")

    exec(compile(code, "README.md", "exec"), {})

    shown = capsys.readouterr().out
    assert re.fullmatch(r"(17|42) \d+\.\d+ \{'ctr': .*\}\n", shown), shown
    assert url in code
    assert "50_000" in code
