"""Versions that travel as deltas: small, and what is loaded is the registered bundle byte by byte."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.export.bundle import ModelBundle
from recmoe.export.delta import Delta
from recmoe.registry import artifacts
from recmoe.registry.registry import Registry
from recmoe.runs.source import load_ranker
from tests.large_shop import large_bundle, with_new_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Files = Callable[[Path], dict[str, bytes]]
ModelFolder = Callable[[Registry, str], Path]


def test_delta_version_sends_a_twentieth_and_is_the_bundle_that_was_registered(
    files: Files, model_folder: ModelFolder, registry: Registry, chain: list[Path], tmp_path: Path, shop_log: pa.Table
) -> None:
    whole = registry.register(chain[0]).transfer
    sent = registry.register(chain[1], base="1").transfer
    found = registry.resolve("models:/shop/2", cache=tmp_path / "cache")

    assert whole is not None
    assert sent is not None
    assert whole.num_bytes == whole.whole_bytes == sum(map(len, files(chain[0]).values())) - _manifest_bytes(chain[0])
    assert sent.num_bytes <= 0.05 * sent.whole_bytes
    assert sent.delta_of == "version 1 of model shop"
    assert sent.num_bytes == sum(map(len, files(model_folder(registry, "2") / "data" / "delta").values()))
    assert files(found.path) == files(chain[1])
    assert found.path.is_relative_to(tmp_path / "cache")
    expected = ModelBundle.load(chain[1])
    ranker = load_ranker("models:/shop/2", runs=tmp_path, registry_uri=registry._store.uri)
    assert ranker.info.digest == expected.digest
    assert (ranker.score(shop_log) == expected.predict(shop_log)).all()


def _manifest_bytes(bundle: Path) -> int:
    return (bundle / "manifest.json").stat().st_size


def test_chain_of_deltas_is_made_at_once_and_kept(
    files: Files, deltas: Registry, chain: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"

    third = deltas.resolve("models:/shop/3", cache=cache)
    again = deltas.resolve("models:/shop/3", cache=cache)
    second = deltas.resolve("models:/shop/2", cache=cache)

    assert again == third
    assert files(third.path) == files(chain[2])
    assert files(second.path) == files(chain[1])
    kept = sorted(path.name for path in (cache / "shop").iterdir() if path.is_dir())
    assert kept == sorted([third.path.name, second.path.name])
    # What lies in the artifact store is copied: it may be changed there.
    assert (third.path / "config.json").stat().st_nlink == 1


def test_delta_is_made_of_the_newest_bundle_that_is_here(
    files: Files, model_folder: ModelFolder, deltas: Registry, chain: list[Path], tmp_path: Path
) -> None:
    second = deltas.resolve("models:/shop/2", cache=tmp_path / "cache")
    shutil.rmtree(model_folder(deltas, "1"))
    shutil.rmtree(model_folder(deltas, "2"))

    third = deltas.resolve("models:/shop/3", cache=tmp_path / "cache")

    assert files(third.path) == files(chain[2])
    assert (third.path / "config.json").samefile(second.path / "config.json")


def test_mlflow_loads_a_delta_version_by_itself(
    deltas: Registry, chain: list[Path], shop_log: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", deltas.uri)

    predictions = mlflow.pyfunc.load_model("models:/shop/3").predict(shop_log.to_pandas())

    expected_NT = ModelBundle.load(chain[2]).predict(shop_log)
    assert (predictions[["ctr", "cvr", "ctcvr"]].to_numpy() == expected_NT).all()


def test_large_delta_is_sent_whole_and_says_so(
    files: Files, registry: Registry, large_bundle_path: Path, tmp_path: Path
) -> None:
    registry.register(large_bundle_path)
    other = with_new_rows(large_bundle_path, tmp_path / "other")

    sent = registry.register(other, base="1").transfer
    found = registry.resolve("models:/shop/2", cache=tmp_path / "cache")

    assert sent is not None
    assert sent.num_bytes == sent.whole_bytes
    assert "whole: what differs from version 1 of model shop has " in str(sent)
    assert str(sent).endswith("bytes, more than half")
    assert files(found.path) == files(other)
    assert not (tmp_path / "cache").exists()


def test_delta_at_the_end_of_many_is_sent_whole(
    files: Files, registry: Registry, chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.registry.transfer.MAX_DELTAS", 1)
    registry.register(chain[0])
    registry.register(chain[1], base="1")

    sent = registry.register(chain[2], base="2").transfer

    assert sent is not None
    assert str(sent).endswith("bytes, whole: version 2 of model shop is at the end of 1 deltas already")
    assert files(registry.resolve("models:/shop/3", cache=tmp_path).path) == files(chain[2])


def test_command_registers_a_delta(
    deltas: Registry, chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["register", str(chain[2]), "--name", "shop", "--delta-of", "champion", "--registry", deltas._store.uri]

    as_text = CliRunner().invoke(app, command)
    as_json = CliRunner().invoke(app, [*command, "--json"])

    assert as_text.stdout.splitlines()[0] == "registered shop version 4"
    assert ", what differs from version 1 of model shop (whole: " in as_text.stdout.splitlines()[1]
    document = json.loads(as_json.stdout)
    assert document["version"] == "5"
    assert document["sent"]["delta_of"] == "version 1 of model shop"
    assert document["sent"]["num_bytes"] < 0.05 * document["sent"]["whole_bytes"]


def test_version_of_another_shape_is_sent_whole_or_made(
    files: Files,
    registry: Registry,
    large_bundle_path: Path,
    shop_config: dict[str, object],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    registry.register(large_bundle_path)
    grown = large_bundle(tmp_path / "grown", shop_config, shop_log, num_buckets=70_000)

    registry.register(grown, base="1")

    assert files(registry.resolve("models:/shop/2", cache=tmp_path / "cache").path) == files(grown)


def test_many_that_ask_at_once_make_it_once(
    files: Files, deltas: Registry, chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, made = artifacts.apply_delta, []

    def counted(delta: Delta, *arguments: Any, **keywords: Any) -> object:
        made.append(delta.digest)
        return apply(delta, *arguments, **keywords)

    monkeypatch.setattr(artifacts, "apply_delta", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: deltas.resolve("models:/shop/3", cache=tmp_path).path, range(4)))

    assert len(set(found)) == 1
    assert files(found[0]) == files(chain[2])
    assert len(made) == 2
