"""Reading: what the largest wrong requests take of a core in this process, from their bytes to the answer's.

    .venv/bin/python -m benchmarks.fuzz.reading runs/first/bundle

Each is read, decoded, ranked where it is right after all, and answered, on one thread whose time on the processor is
counted: other processes of the machine do not count, sockets are not there. It ends with 1 where a request takes more
than it may; what candidates take in a right request is not counted against one that is answered.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from recmoe.errors import RequestError
from recmoe.ranking.ranker import Ranker

# isort: split

import torch

from benchmarks.fuzz.costly import costly
from benchmarks.fuzz.grpc_calls import costly_messages
from benchmarks.fuzz.valid import ARROW, HEAD_LENGTH, ValidRequests
from benchmarks.fuzz.wire import Sent
from recmoe.client import ServedModel
from recmoe.ranking.columns import AnyRequest
from serving.description import describe
from serving.problem import failure
from serving.protocols.arrow import Arrow
from serving.protocols.json_v1 import JsonV1
from serving.protocols.kserve_infer import GrpcInferCall, read_message
from serving.protocols.kserve_v2 import InferCall
from serving.settings import ServeSettings

Read = Callable[[Ranker, bytes], AnyRequest]
MAX_VALUES = ServeSettings().max_values


@dataclass(frozen=True)
class Reading:
    """What a request took."""

    name: str
    answer: str
    """The field at fault, or the number of candidates that were ranked."""
    is_right: bool
    times_ms: list[float]


def main() -> int:
    """Measure, and print a line for each request, the dearest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=5, help="that each is read (%(default)s)")
    parser.add_argument("--limit-ms", type=float, default=100.0, help="of a core per request (%(default)s)")
    parser.add_argument("--only", default="", help="those with this in their name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ranker = Ranker.load(given.bundle)
    model = ServedModel.read(describe(ranker).model_dump())
    valid = ValidRequests.of(model, num_candidates=2, seed=0)
    # As a server does once it has a model.
    gc.collect()
    gc.freeze()
    readings = [read(ranker, sent, times=given.times) for sent in all_costly(valid) if given.only in sent.name]
    readings.sort(key=lambda one: -min(one.times_ms))
    print("| request | answer | best ms | median ms |\n|---|---|--:|--:|")
    for one in readings:
        print(f"| {one.name} | {one.answer} | {min(one.times_ms):.0f} | {statistics.median(one.times_ms):.0f} |")
    return int(any(min(one.times_ms) > given.limit_ms and not one.is_right for one in readings))


def all_costly(valid: ValidRequests) -> Iterator[Sent]:
    """One of each kind, in all protocols."""
    yield from costly(valid)
    yield from costly_messages(valid)


def read(ranker: Ranker, sent: Sent, *, times: int) -> Reading:
    """Read and answer a request some times."""
    head, _, body = sent.pieces[0].partition(b"\r\n\r\n") if sent.route != "gRPC" else (b"", b"", sent.pieces[0])
    times_ms = []
    answer, is_right = "", False
    for _ in range(times):
        start_s = time.thread_time()
        try:
            request = reader_of(sent.route, head)(ranker, body)
            (ranked,) = ranker.rank_columns([ranker.decode(request)])
            if isinstance(ranked, RequestError):
                raise ranked
            ranked.response().model_dump_json()
            answer, is_right = f"{request.num_candidates} candidates", True
        except RequestError as error:
            failure("/v1/rank", HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=error.field)
            answer = f"{error.field[:40]}: {str(error).removeprefix(error.field)[2:60]}"
        times_ms.append(1000 * (time.thread_time() - start_s))
    return Reading(sent.name, answer.replace("|", "/"), is_right, times_ms)


def reader_of(route: str, head: bytes) -> Read:
    """What reads the requests of a route."""
    if route == "gRPC":
        return lambda ranker, body: GrpcInferCall(max_values=MAX_VALUES).read(
            ranker, read_message(body, "ModelInferRequest")
        )
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    if headers.get("Content-Type") == ARROW:
        return Arrow(max_values=MAX_VALUES).read
    if route.startswith("/v2"):
        return InferCall(headers.get(HEAD_LENGTH), max_values=MAX_VALUES).read
    return JsonV1(max_values=MAX_VALUES).read


if __name__ == "__main__":
    sys.exit(main())
