"""The page of metrics while other processes begin to count."""

import struct
import threading
from pathlib import Path

import pytest

from serving.metrics import ServingMetrics
from serving.orders import SHARED_METRICS


def test_a_file_that_another_process_is_about_to_size_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ServingMetrics()
    monkeypatch.setenv(SHARED_METRICS, str(tmp_path))
    monkeypatch.setattr("serving.metrics._FILLED_S", 0.5)
    file = tmp_path / "counter_1.db"
    file.touch()
    sized = threading.Timer(0.2, lambda: file.write_bytes(bytes(65536)))

    sized.start()
    page = metrics.page()
    sized.join()

    assert page == b""


def test_a_file_that_stays_empty_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ServingMetrics()
    monkeypatch.setenv(SHARED_METRICS, str(tmp_path))
    (tmp_path / "counter_1.db").touch()

    with pytest.raises(struct.error):
        metrics.page()
