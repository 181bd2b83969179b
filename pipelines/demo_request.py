"""rank_once: start the API as a process of its own, wait until it is ready, ask it once, stop it."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from recmoe.errors import ServingError
from recmoe.experiment import ExperimentConfig
from recmoe.ranking.example import requests_of_rows

START_S = 120.0
"""Seconds a server gets to load and to replay its model."""
NUM_ROWS = 100
"""Rows of the test split that the request is made of."""
TOP_K = 10


def rank_once(config: ExperimentConfig, source: str, console: Console) -> dict[str, Any]:
    """Rank the first list of the test split, and print the request and the ordered items."""
    request = _first_list(config)
    with server(source) as address:
        response = post(f"{address}/v1/rank", request)
    shown = {side: request[side] for side in ("user", "context") if request[side]}
    console.print(f"POST /v1/rank {json.dumps(shown, default=str)} with {len(request['candidates'])} candidates")
    console.print(_items(response))
    model = response["model"]
    console.print(
        f"model {model['name']} version {model['version']}, {response['timing_ms']['total']:.1f} ms in the ranker"
    )
    return response


def _first_list(config: ExperimentConfig) -> dict[str, Any]:
    """A request of the test split; where a list of the log has one row, the items of others stand beside it."""
    rows = pq.ParquetFile(config.data.test[0]).read_row_group(0).slice(0, NUM_ROWS)
    requests = list(requests_of_rows(config.inputs, rows))
    request = {**requests[0], "top_k": TOP_K}
    if len(request["candidates"]) == 1 and config.inputs.item is not None:
        items = {row[config.inputs.item]: row for other in requests for row in other["candidates"]}
        request["candidates"] = list(items.values())
    return request


def _items(response: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    tasks = list(response["items"][0]["tasks"])
    for name in ("rank", "item", "score", *tasks):
        table.add_column(name, justify="left" if name == "item" else "right")
    for place, item in enumerate(response["items"], start=1):
        values = (f"{item['tasks'][task]:.4f}" for task in tasks)
        table.add_row(str(place), str(item["item_id"]), f"{item['score']:.5f}", *values)
    return table


@contextmanager
def server(source: str) -> Iterator[str]:
    """The address of an API that serves a model and is ready; stopped at the end.

    Raises:
        ServingError: it ended before it was ready, or took too long.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("recmoe")), "serve", source, "--port", str(port)]
    # Not a pipe: nobody reads it while the server runs, and a full one would stop it.
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, said, f"{address}/readyz")
            yield address
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], said: TextIO, url: str) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            said.seek(0)
            raise ServingError(f"the server ended with status {process.returncode}: {said.read().strip()}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServingError(f"the server was not ready after {START_S:.0f} s; see what {url} says")


def post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    """POST a JSON document and read the JSON answer."""
    body = json.dumps(document, default=str).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
