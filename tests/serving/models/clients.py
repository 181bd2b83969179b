"""Clients: threads that ask one request after the other, and keep every answer."""

import http.client
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clients:
    """Ask on connections that they keep, until they are told to stop.

    A connection that ends without an answer is noted in ``lost``, any answer but a ranking in ``faults``.
    """

    url: str
    requests: list[dict[str, Any]]
    count: int = 3
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Number of the request, and the answer."""
    faults: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Clients":
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def versions(self) -> "Counter[str | None]":
        """Answers by the version that they name."""
        return Counter(answer["model"]["version"] for _, answer in list(self.answers))

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=120)
        while not self._is_over.is_set():
            number = (number + 1) % len(self.requests)
            try:
                connection.request("POST", "/v1/rank", json.dumps(self.requests[number]))
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            if response.status == 200:
                self.answers.append((number, json.loads(answer)))
            else:
                self.faults.append(f"{response.status} {answer.decode()}")
        connection.close()
