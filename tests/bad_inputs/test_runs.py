"""A damaged checkpoint or run folder costs no more than it must, and a full disk costs no checkpoint."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def interrupt(run: Path, *, at_step: int) -> None:
    """Put a finished run back to where it was killed: no bundle, no checkpoint after a step."""
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({**state, "status": "interrupted"}))
    shutil.rmtree(run / "bundle")
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > at_step:
            shutil.rmtree(folder)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """What writing to a full disk is like: it fails in the middle of a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def resume(train: Command, shared_log: Path, run: Path) -> Command:
    return lambda *arguments: train(shared_log / "config.yaml", "--run-dir", run, "--resume", *arguments)


def test_damaged_checkpoint_is_named_and_the_one_before_it_is_used(resume: Command, run: Path) -> None:
    interrupt(run, at_step=4)
    tensors = next((run / "checkpoints/step-00000004/tensors").glob("*.safetensors"))
    damage(tensors)

    result = resume()

    assert result.code == 0
    assert result.errors == (
        f"warning: skipped: {tensors} is damaged: its hash differs; use an older checkpoint, and remove this one\n"
    )
    assert (run / "bundle").is_dir()


def test_run_without_a_good_checkpoint_says_that_it_starts_again(resume: Command, run: Path) -> None:
    interrupt(run, at_step=2)
    (run / "checkpoints/step-00000002/manifest.json").write_text("{")

    result = resume()

    assert result.code == 0
    assert result.errors.endswith(f"warning: no checkpoint in {run}/checkpoints can be used; the run starts again\n")


def test_checkpoint_of_another_schema_is_refused(resume: Command, run: Path, shared_log: Path, train: Command) -> None:
    other = run.parent / "other"
    assert train(shared_log / "config.yaml", "inputs.width=8", "--run-dir", other).code == 0
    interrupt(run, at_step=0)
    shutil.copytree(other / "checkpoints", run / "checkpoints", dirs_exist_ok=True)

    result = resume()

    assert result.code == 1
    assert result.errors.startswith(
        f"error: {run}/checkpoints/step-00000004 belongs to another schema or config (fingerprint "
    )
    assert result.errors.endswith("resume with the config and encoder that it was made with, or start a new run\n")


def test_run_with_a_checkpoint_refuses_another_config(resume: Command) -> None:
    result = resume("inputs.width=8")

    assert result.code == 1
    assert result.errors.endswith(
        "was started with another config: inputs.width; resume with the same values, or start afresh in another "
        "--run-dir\n"
    )


def test_damaged_encoder_is_learnt_again_once_it_is_removed(resume: Command, run: Path) -> None:
    interrupt(run, at_step=2)
    damage(run / "encoder/vocabulary_0.arrow")

    refused = resume()
    shutil.rmtree(run / "encoder")
    resumed = resume()

    assert refused.code == 1
    assert refused.errors.startswith(f"error: {run}/encoder: the encoder")
    assert refused.errors.endswith(f"; or remove {run}/encoder and resume: it is learnt again from the same files\n")
    assert (resumed.code, resumed.errors) == (0, "")


@pytest.mark.parametrize(
    ("name", "text", "reason"), [("config.json", "{", "Expecting property name"), ("state.json", "[]", "it holds no")]
)
def test_damaged_file_of_a_run_is_named(resume: Command, run: Path, name: str, text: str, reason: str) -> None:
    (run / name).write_text(text)

    result = resume()

    assert result.code == 1
    assert result.errors.startswith(f"error: {run}/{name} is damaged: {reason}")
    assert result.errors.endswith("; put it back from a copy, or train again in another --run-dir\n")


def test_full_disk_leaves_the_last_good_checkpoint_and_the_run_goes_on(resume: Command, run: Path) -> None:
    interrupt(run, at_step=2)

    with files_of_at_most(50_000):
        failed = resume()
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    resumed = resume()

    assert failed.code == 1
    assert failed.errors.startswith(f"error: checkpoint step-00000004 could not be saved in {run}/checkpoints (")
    assert failed.errors.endswith("older checkpoints are untouched: free some space or mend the cause, then resume\n")
    assert failed.errors.count("\n") == 1
    assert left == ["step-00000002"]
    assert (resumed.code, resumed.errors) == (0, "")
