"""Lines of the log: text, or an object each."""

import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.observability.call import CALL, Call
from serving.observability.logs import logging_as

LOGGER = logging.getLogger("serving.test")


@pytest.fixture
def in_request() -> Any:
    """Lines belong to a request."""
    token = CALL.set(Call.of({"x-request-id": "r1"}, method="POST", path="/v1/rank", is_ranking=True))
    yield
    CALL.reset(token)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("in_request")
def test_json_line_holds_message_request_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("json"):
        LOGGER.warning("took %d ms\nor so", 7, extra={"fields": {"total_ms": 7.5, "path": Path("a")}})

    (line,) = lines(capsys)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "serving.test",
        "message": "took 7 ms\nor so",
        "process": os.getpid(),
        "request_id": "r1",
        "total_ms": 7.5,
        "path": "a",
    }


def test_json_takes_all_packages_warnings_of_python_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("json"), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
        logging.getLogger("another").warning("full")
        logging.getLogger("another").info("not shown")
        LOGGER.info("shown")
        try:
            raise KeyError("a")
        except KeyError:
            LOGGER.exception("failed")

    found = lines(capsys)
    assert [(line["logger"], line["level"]) for line in found] == [
        ("py.warnings", "warning"),
        ("another", "warning"),
        ("serving.test", "info"),
        ("serving.test", "error"),
    ]
    assert "request_id" not in found[0]
    assert found[-1]["exception"].endswith("KeyError: 'a'")


@pytest.mark.usefixtures("in_request")
@pytest.mark.parametrize("is_worker", [False, True])
def test_text_line_names_its_request(is_worker: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as("text", is_worker=is_worker):
        LOGGER.info("not shown")
        LOGGER.warning("took %d ms", 7)

    prefix = f"worker {os.getpid()} " if is_worker else ""
    assert capsys.readouterr().err == f"{prefix}warning: took 7 ms [request r1]\n"


def test_text_line_without_a_request_is_plain_and_logging_is_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = [(logger.handlers, logger.level, logger.propagate) for logger in (logging.root, LOGGER.parent)]  # type: ignore[union-attr]

    with logging_as("text"):
        LOGGER.error("no model")
    with logging_as("json"):
        pass

    after = [(logger.handlers, logger.level, logger.propagate) for logger in (logging.root, LOGGER.parent)]  # type: ignore[union-attr]
    assert capsys.readouterr().err == "error: no model\n"
    assert before == after


def test_server_that_cannot_start_says_so_in_json_too(tmp_path: Path) -> None:
    code = "from recmoe.cli import main; main()"

    run = subprocess.run(
        [sys.executable, "-c", code, "serve", str(tmp_path), "--port", "0", "--log-format", "json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )

    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = map(json.loads, run.stderr.splitlines())
    assert line["level"] == "error"
    assert "is no bundle" in line["message"]


@pytest.mark.slow
def test_server_with_workers_writes_an_object_per_line(
    bundle_path: Path, tmp_path: Path, ask: Callable[..., Any]
) -> None:
    log = tmp_path / "log"

    def wait_for(text: str) -> None:
        end_s = time.monotonic() + 120
        while text not in log.read_text():
            assert time.monotonic() < end_s
            time.sleep(0.05)

    options = ["--port=0", "--workers=2", "--threads=1", "--deadline-ms=60000", "--log-format=json"]
    options += ["--log-slower-than-ms=0"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from recmoe.cli import main; main()", "serve", str(bundle_path), *options],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            cwd=tmp_path,
        )
        try:
            wait_for("ready after")
            (url,) = re.findall(r" on (http://[^,]+), API page", log.read_text())
            request = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102]}}
            ask(f"{url}/v1/rank", request, {"X-Request-Id": "r1"})
            wait_for("slow request")
        finally:
            process.terminate()
            process.wait(60)

    found = [json.loads(line) for line in log.read_text().splitlines()]
    (slow,) = [line for line in found if line["logger"] == "serving.observability.slow"]
    assert slow["request_id"] == "r1"
    assert slow["process"] != process.pid
    assert {line["process"] for line in found if line["message"].startswith("serving shop on")} == {process.pid}
