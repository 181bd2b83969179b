"""A load on a real server: what was sent is what is counted."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.errors import CallError, RequestError, ServingError
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.bench.bench import BenchSettings, run_bench
from serving.bench.load import Target
from serving.bench.workers import Workers

Message = MutableMapping[str, Any]


class Gate:
    """Stands before the API: asks for a token, and changes answers to rankings after the first ones."""

    def __init__(
        self, inner: Any, *, num_untouched: int = 0, status: int = 200, change: Callable[[bytes], bytes]
    ) -> None:
        self._inner, self._num_untouched, self._status, self._change = inner, num_untouched, status, change

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_ranking = scope.get("path") == "/v1/rank"
        if scope.get("path", "").startswith("/v1/") and (b"authorization", b"Bearer secret") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        self._num_untouched -= is_ranking

        async def changed(message: Message) -> None:
            if is_ranking and self._num_untouched < 0:
                if "status" in message:
                    message["status"] = self._status
                if "body" in message:
                    message["body"] = self._change(message["body"])
            await send(message)

        await self._inner(scope, receive, changed)


def bench(*arguments: str, token: str | None = None) -> Any:
    return CliRunner(env={"RECMOE_TOKEN": token}).invoke(app, ["bench", "serve", *arguments])


def quiet(_: str) -> Callable[[float], None]:
    return lambda _: None


def assert_counts_add_up(load: dict[str, Any], *, candidates: int) -> None:
    times = load["latency_ms"]
    assert load["num_requests"] == load["num_ok"] + load["num_refused"] + sum(load["other"].values())
    assert load["ok_per_s"] == pytest.approx(load["num_ok"] / load["elapsed_s"])
    assert load["candidates_per_s"] == pytest.approx(load["ok_per_s"] * candidates)
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert load["health_ms"]["p50"] > 0
    assert load["num_health_failures"] == 0


@pytest.mark.slow
def test_saturation_is_found_and_shares_of_it_are_measured(url: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"

    run = bench(url, "--duration", "1", "--connections", "1,4", "--candidates", "20", "--payloads", "8",
                "--timeout", "60", "--json", str(file))  # fmt: skip

    assert run.exit_code == 0, run.output
    found = json.loads(file.read_text())
    assert [load["connections"] for load in found["closed"]] == [1, 4]
    assert [load["share"] for load in found["open"]] == [0.25, 0.5, 0.75, 1.0, 1.5]
    assert found["saturation_per_s"] == max(load["ok_per_s"] for load in found["closed"])
    for load in [*found["closed"], *found["open"]]:
        assert_counts_add_up(load, candidates=20)
    for load in found["open"]:
        assert load["rate"] == pytest.approx(load["share"] * found["saturation_per_s"])
        assert load["num_requests"] == max(1, round(load["rate"] * 1))
    assert found["model"]["name"] == "shop"
    assert found["checked"]["num_wrong"] == 0
    assert 0 < found["checked"]["num_equal"] <= 8 * 7
    for shown in ("p99", "healthz p99", "4 connections", "150%", "saturation: ", " equal, 0 wrong"):
        assert shown in run.output


@pytest.mark.slow
def test_rates_of_several_processes_are_made_of_a_log(
    ranker: Ranker, shop_log: pa.Table, serve_app: Any, tmp_path: Path
) -> None:
    pq.write_table(shop_log, tmp_path / "log.parquet")
    with serve_app(Gate(create_app(ranker), change=lambda body: body)) as url:
        run = bench(url, "--rate", "3,6", "--duration", "1.5", "--candidates", "7", "--data", f"{tmp_path}/*.parquet",
                    "--top-k", "5", "--processes", "2", "--payloads", "4", "--deadline", "60000", "--timeout", "60",
                    "--json", "-", token="secret")  # fmt: skip

    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["closed"] == []
    assert found["saturation_per_s"] is None
    assert [(load["rate"], load["num_ok"]) for load in found["open"]] == [(3.0, 4), (6.0, 9)]
    for load in found["open"]:
        assert_counts_add_up(load, candidates=7)
        assert load["lag_ms"]["max"] is not None
    # Four requests of each rate have rankings to compare; they take turns.
    assert found["checked"] == {"num_equal": 8, "num_wrong": 0, "num_other_version": 0}


@pytest.mark.slow
def test_ranking_that_changes_under_load_is_found(ranker: Ranker, serve_app: Any) -> None:
    gate = Gate(create_app(ranker), num_untouched=2, change=lambda body: re.sub(rb'("score":-?)\d', rb"\g<1>9", body))
    with serve_app(gate) as url:
        run = bench(url, "--rate", "4", "--duration", "1", "--payloads", "2", "--timeout", "60", token="secret")

    assert isinstance(run.exception, ServingError)
    assert str(run.exception) == "2 rankings under load differ from those at rest"
    assert "0 equal, 2 wrong" in run.output


@pytest.mark.slow
def test_server_that_ranks_nothing_under_load_is_told(ranker: Ranker, serve_app: Any) -> None:
    gate = Gate(create_app(ranker), num_untouched=2, status=500, change=lambda body: body)
    settings = BenchSettings("", payloads=2, connections=(2,), duration_s=0.5, timeout_s=60)
    with serve_app(gate) as url, pytest.raises(ServingError, match=r"ranked none of the requests: \{'500': \d+\}"):
        run_bench(BenchSettings(**{**vars(settings), "url": url}), token="secret", begin=quiet)


def test_missing_token_is_told(ranker: Ranker, serve_app: Any) -> None:
    with serve_app(Gate(create_app(ranker), change=lambda body: body)) as url:
        run = bench(url)

    assert isinstance(run.exception, CallError)
    assert run.exception.status == 401


def test_request_that_the_server_does_not_take_is_told(url: str) -> None:
    run = bench(url, "--candidates", "10001", "--payloads", "1")

    assert isinstance(run.exception, RequestError)
    assert run.exception.field == "candidates"


def test_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    run = bench(f"http://127.0.0.1:{port}")

    assert str(run.exception) == f"http://127.0.0.1:{port} does not answer: Connection refused"


@pytest.mark.parametrize(
    ("option", "text", "kind"),
    [
        ("--rate", "fast", "numbers"),
        ("--rate", "5,-1", "numbers"),
        ("--rate", "inf", "numbers"),
        ("--connections", "1.5", "whole numbers"),
        ("--connections", "", "whole numbers"),
    ],
)
def test_wrong_numbers_are_wrong_usage(option: str, text: str, kind: str) -> None:
    run = bench("http://x", option, text)

    assert run.exit_code == 2
    assert f"expected {kind} above 0" in " ".join(run.output.split())


@pytest.mark.slow
def test_process_that_is_killed_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target("127.0.0.1", listener.getsockname()[1], False, 30.0)
        with Workers(target, [b"x"], health=b"x", num_workers=1) as workers:
            victim = workers._processes[0].pid
            assert victim is not None

            with pytest.raises(ServingError, match="a process of the load generator was killed; was there too little"):
                workers.closed(1, 20.0, tick=lambda _: os.kill(victim, signal.SIGKILL))

        assert [process.is_alive() for process in workers._processes] == [False]
