"""A damaged bundle, or one of another schema, is of no use to any command; registering one is in tests/registry."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"user": {"user_id": "u1"}, "candidates": [{"item_id": "i1"}]}))
    return path


@pytest.mark.parametrize("command", ["rank", "serve", "export", "evaluate"])
def test_damaged_bundle_is_refused_by_every_command(
    recmoe: Command, run: Path, request_file: Path, command: str
) -> None:
    file = run / "bundle/dense.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    arguments = {
        "rank": (request_file, "--model", run),
        "serve": (run, "--port", 18_737),
        "export": (run, "--to", run.parent / "exported"),
        "evaluate": (run, "--to", run.parent / "evaluated"),
    }

    result = recmoe(command, *arguments[command])

    assert (result.code, result.out) == (1, "")
    assert result.errors == f"error: {file} is damaged: its content has changed; copy or export the bundle again\n"


def test_bundle_with_the_encoder_of_another_schema_is_refused(
    recmoe: Command, run: Path, request_file: Path, bundle_path: Path
) -> None:
    shutil.rmtree(run / "bundle/encoder")
    shutil.copytree(bundle_path / "encoder", run / "bundle/encoder")

    result = recmoe("rank", request_file, "--model", run)

    assert result.code == 1
    assert result.errors.startswith(f"error: {run}/bundle/encoder/")
    assert result.errors.endswith("; copy or export the bundle again\n")


def list_outside(bundle: Path) -> str:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"]["../secret.pkl"] = {"size": 1, "sha256": "0" * 64}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return f"error: {bundle}/manifest.json lists '../secret.pkl': it leaves the folder; do not load it, copy or export"


def make_a_link(bundle: Path) -> str:
    elsewhere = bundle.parent / "elsewhere.json"
    shutil.move(bundle / "config.json", elsewhere)
    (bundle / "config.json").symlink_to(elsewhere)
    return f"error: {bundle}/config.json is a symbolic link; a bundle holds files alone"


def add_code(bundle: Path) -> str:
    (bundle / "tables" / "load.py").write_text("raise SystemExit('ran')")
    return f"error: {bundle}/tables/load.py is not listed in manifest.json; remove it"


def nest(bundle: Path) -> str:
    (bundle / "manifest.json").write_text("[" * 200_000)
    return f"error: {bundle}/manifest.json is damaged: it cannot be read"


@pytest.mark.parametrize("tamper", [list_outside, make_a_link, add_code, nest])
def test_bundle_that_was_tampered_with_is_refused_by_every_command(
    recmoe: Command, run: Path, request_file: Path, log: Path, tamper: Callable[[Path], str]
) -> None:
    words = tamper(run / "bundle")
    arguments = {
        "rank": (request_file, "--model", run),
        "serve": (run, "--port", 18_738),
        "evaluate": (run, "--to", run.parent / "evaluated"),
        "predict": (run, "--data", log / "test.parquet", "--to", run.parent / "predicted.parquet"),
        "explain-gates": (run, "--to", run.parent / "gates"),
        "prune-experts": (run, "--keep", 1, "--to", run.parent / "pruned"),
    }

    for command, given in arguments.items():
        result = recmoe(command, *given)

        assert (result.code, result.out) == (1, ""), command
        assert result.errors.startswith(words), result.errors
        assert result.errors.count("\n") == 1, result.errors


def test_folder_that_is_not_there_is_named(recmoe: Command, request_file: Path) -> None:
    result = recmoe("rank", request_file, "--model", "nowhere")

    assert result.code == 1
    assert result.errors == "error: there is no folder nowhere; name a run, a bundle or models:/NAME@ALIAS\n"
