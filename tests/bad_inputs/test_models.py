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


def test_folder_that_is_not_there_is_named(recmoe: Command, request_file: Path) -> None:
    result = recmoe("rank", request_file, "--model", "nowhere")

    assert result.code == 1
    assert result.errors == "error: there is no folder nowhere; name a run, a bundle or models:/NAME@ALIAS\n"
