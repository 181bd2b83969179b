"""A ranker of whichever checkout comes first on PYTHONPATH: from the bytes of a request to those of the answer, timed.

    python ranking_worker.py BUNDLE [--threads N] [--precision bf16] [--items STORE] [--known-bytes N]

Reads lines ``FILE COUNT`` from standard input, ranks the request in the file COUNT times, and writes the milliseconds
of each as a line of JSON, with the last answer. It uses nothing of this folder, so that an older checkout can run it.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Load, then answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 for its own number")
    parser.add_argument("--precision", default="fp32", help="of products, if there is a choice (%(default)s)")
    parser.add_argument("--items", type=Path, help="store of items, if requests hold ids alone")
    parser.add_argument("--known-bytes", type=int, default=0, help="for products of items (%(default)s)")
    arguments = parser.parse_args()

    # After recmoe, which sets how torch's threads wait.
    import torch

    from recmoe.ranking.ranker import Ranker
    from recmoe.ranking.request import RankRequest

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    choice: dict[str, Any] = {} if arguments.precision == "fp32" else {"precision": arguments.precision}
    if arguments.items:
        try:
            from recmoe.ranking.items import open_store

            store: Any = open_store(str(arguments.items), "item")
        except ImportError:
            # An older checkout opens the folder itself.
            store = arguments.items
        choice |= {"items": store, "items_known_bytes": arguments.known_bytes}
    ranker = Ranker.load(arguments.bundle, **choice)
    print("ready", flush=True)
    for line in sys.stdin:
        path, count = line.split()
        body = Path(path).read_bytes()
        times_ms = []
        for _ in range(int(count)):
            start_s = time.perf_counter()
            answer = ranker.rank(RankRequest.parse(body)).model_dump_json()
            times_ms.append((time.perf_counter() - start_s) * 1000)
        print(json.dumps({"times_ms": times_ms, "answer": json.loads(answer)}), flush=True)


if __name__ == "__main__":
    main()
