"""Fuzz: hostile requests in every protocol to a running server of this machine, counted by route and status.

    recmoe serve runs/first --grpc-port 8001 --head-s 1 --body-s 1
    .venv/bin/python -m benchmarks.fuzz --url http://127.0.0.1:8000 --grpc 127.0.0.1:8001 --minutes 3

First come right requests in every form, then the largest wrong ones, then everything that is no HTTP; then, for
``--minutes``, right requests with mistakes: in values and names of JSON, in bytes of Arrow, tensors and gRPC, in
headers and in HTTP itself; then Schemathesis, for a quarter of that time, by the server's OpenAPI document. There is
one connection at a time, so that what a request takes of a core is known. It ends with 1 where an answer was 5xx, did
not come in time or was no HTTP. ``--to`` keeps counts, and the dearest and the faulty requests, which ``--replay FILE``
sends once more.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.fuzz.fuzz import FuzzSettings, fuzz, replay
from benchmarks.fuzz.openapi import run_schemathesis


def main() -> int:
    """Ask, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(%(default)s)")
    parser.add_argument("--grpc", help="host and port of KServe's protocol in gRPC")
    parser.add_argument("--minutes", type=float, default=3.0, help="of mutations (%(default)s)")
    parser.add_argument("--limit-ms", type=float, default=100.0, help="of a core per request (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--to", type=Path, default=Path("benchmarks/.cache/fuzz"), help="(%(default)s)")
    parser.add_argument("--without-openapi", action="store_true", help="leave Schemathesis out")
    parser.add_argument("--replay", type=Path, help="send this file, and nothing else")
    given = parser.parse_args()
    if given.replay is not None:
        outcome = replay(given.url, given.replay)
        print(f"{outcome.status} after {outcome.seconds:.2f} s: {outcome.body[:500].decode(errors='replace')}")
        return 0
    tally = fuzz(
        FuzzSettings(given.url, minutes=given.minutes, grpc=given.grpc, limit_ms=given.limit_ms, seed=given.seed)
    )
    told: list[str] = []
    if not given.without_openapi:
        statuses, told = run_schemathesis(given.url, seconds=15 * given.minutes, seed=given.seed)
        tally.statuses += statuses
    tally.write(given.to)
    print(tally.page())
    for line in told:
        print(f"Schemathesis: {line}")
    return 1 if tally.faults or told else 0


if __name__ == "__main__":
    sys.exit(main())
