"""An alias is moved thousands of times, and by several at once, without losing a move."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recmoe.errors import RegistryError
from recmoe.registry.registry import Registry

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

NOTE = "better cvr in every slice " * 5
WRITER = """
import sys
from pathlib import Path
from recmoe.errors import RegistryError
from recmoe.registry.registry import Registry

uri, name, num_moves = sys.argv[1:]
registry = Registry.connect(uri, folder=Path("."))
for move in range(int(num_moves)):
    registry.promote("shop", str(move % 2 + 1), by=name, note=f"move {move}")
"""


def two_versions(registry: Registry) -> None:
    """A model with two versions; what is in them does not matter to an alias."""
    registry._client.create_registered_model("shop")
    for _ in range(2):
        registry._client.create_model_version("shop", source="file:///nowhere")


def moved_by_three(uri: str, *, num_moves: int, folder: Path) -> None:
    """Three processes that move the alias at once."""
    command = [sys.executable, "-W", "ignore", "-c", WRITER, uri]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([*command, name, str(num_moves)], cwd=folder, env=environment, stderr=subprocess.PIPE)
        for name in ("ann", "bob", "eve")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors.decode()


def check_log(registry: Registry, *, num_moves: int) -> None:
    history = registry.history("shop")
    for name in ("ann", "bob", "eve"):
        notes = [entry.note for entry in history if entry.by == name]
        assert notes == [f"move {move}" for move in range(num_moves)]
    assert len(history) == 3 * num_moves
    assert [entry.previous for entry in history[1:]] == [entry.version for entry in history[:-1]]
    assert int(registry._client.get_registered_model("shop").aliases["champion"]) == int(history[-1].version)


def test_promotions_never_fill_the_log(registry: Registry) -> None:
    two_versions(registry)
    old = [
        {
            "version": str(i % 2 + 1),
            "previous": None,
            "at": "2026-01-01",
            "by": "ann",
            "action": "promote",
            "note": NOTE,
        }
        for i in range(370)
    ]
    registry._client.set_registered_model_tag("shop", "recmoe.promotions.champion", json.dumps(old))
    registry._client.set_registered_model_alias("shop", "champion", "2")

    for move in range(30):
        registry.promote("shop", str(move % 2 + 1), note=NOTE)
    back = registry.rollback("shop")

    assert (back.previous, back.version) == ("2", "1")
    assert len(registry.history("shop")) == 401


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the test."""
    pytest.importorskip("psycopg2")
    if not shutil.which("initdb") or not shutil.which("postgres"):
        pytest.skip("PostgreSQL is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # The server refuses to run as root, and its user must be known to the machine.
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, "nobody")
        data = f"{folder}/data"
        subprocess.run(["initdb", "-D", data, "-U", "ann", "-A", "trust"], check=True, capture_output=True, **user)
        command = f"postgres -D {data} -p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        server = subprocess.Popen(command.split(), stderr=subprocess.DEVNULL, **user)
        yield f"postgresql+psycopg2://ann:secret@127.0.0.1:{port}/postgres"
        # Terminated, it would wait for the connections that this process keeps.
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


@pytest.mark.slow
def test_three_writers_lose_no_move_in_postgresql(postgres: str, tmp_path: Path) -> None:
    registry = connected(postgres, folder=tmp_path)
    two_versions(registry)

    moved_by_three(postgres, num_moves=20, folder=tmp_path)

    check_log(registry, num_moves=20)
    registry.promote("shop", "1", note="界" * 3000)
    assert "secret" not in registry.uri
    with pytest.raises(RegistryError, match=r"postgresql\+psycopg2://127\.0\.0\.1:\d+/postgres has no model sho"):
        registry.history("sho")


def connected(uri: str, *, folder: Path) -> Registry:
    """The registry of a server that may still be starting."""
    for _ in range(60):
        try:
            return Registry.connect(uri, folder=folder)
        except RegistryError:
            time.sleep(1)
    return Registry.connect(uri, folder=folder)


@pytest.mark.slow
def test_three_writers_lose_no_move_in_sqlite(registry: Registry, tmp_path: Path) -> None:
    two_versions(registry)

    moved_by_three(registry._store.uri, num_moves=60, folder=tmp_path)

    check_log(registry, num_moves=60)
