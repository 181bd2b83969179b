"""A store is reached, or said in time not to be there."""

import socket
import sys
import time
from pathlib import Path

import pytest

from recmoe.errors import RegistryError
from recmoe.tracking.mlflow_store import MlflowStore

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_server_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(RegistryError, match=rf"MLflow at http://127.0.0.1:{port} does not answer: .*start it, set"):
        MlflowStore.connect(f"http://127.0.0.1:{port}", folder=tmp_path)


def test_server_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        start_s = time.monotonic()

        with pytest.raises(RegistryError, match="does not answer: timed out"):
            MlflowStore.connect(f"http://127.0.0.1:{port}", folder=tmp_path, timeout_s=0.2)

        assert time.monotonic() - start_s < 2


def test_database_without_its_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(RegistryError, match=r"MLflow at postgresql://nobody: .*psycopg"):
        MlflowStore.connect("postgresql://nobody", folder=tmp_path)


def test_database_that_cannot_be_opened_is_tried_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}"
    start_s = time.monotonic()

    with pytest.raises(RegistryError, match=f"MLflow at {uri} cannot be opened: unable to open .*; mend that, set"):
        MlflowStore.connect(uri, folder=tmp_path)

    # Ten tries take more than a hundred.
    assert time.monotonic() - start_s < 20


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_database_server_that_is_not_there_is_named_without_password(driver: str, tmp_path: Path) -> None:
    pytest.importorskip(driver)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(RegistryError, match=f"MLflow at .*://{address}/x cannot be opened: .*refused") as raised:
        MlflowStore.connect(f"postgresql+{driver}://ann:secret@{address}/x", folder=tmp_path)

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_database_server_that_does_not_answer_is_given_up_in_time(driver: str, tmp_path: Path) -> None:
    pytest.importorskip(driver)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"postgresql+{driver}://127.0.0.1:{listener.getsockname()[1]}/x"
        start_s = time.monotonic()

        with pytest.raises(RegistryError, match=r"cannot be opened: .*timeout expired"):
            MlflowStore.connect(uri, folder=tmp_path, timeout_s=2)

        assert time.monotonic() - start_s < 20


def test_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/elsewhere/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    store = MlflowStore.connect(None, folder=tmp_path / "unused")

    assert store.uri == uri
    assert not (tmp_path / "unused").exists()


def test_artifacts_of_a_sqlite_file_lie_beside_it(tmp_path: Path) -> None:
    store = MlflowStore.connect(f"sqlite:///{tmp_path}/runs.db", folder=tmp_path)

    experiment = store.client.get_experiment(store.experiment_id("shop"))

    assert experiment.artifact_location == (tmp_path / "artifacts").as_uri()
    assert store.experiment_id("shop") == experiment.experiment_id
