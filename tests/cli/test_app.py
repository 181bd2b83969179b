import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recmoe import __version__
from recmoe.cli import app, main
from recmoe.cli.app import MENDABLE
from recmoe.errors import DataError

COMMANDS = (
    "doctor", "data", "init", "plan", "train", "checkpoint", "evaluate", "predict", "export",
    "register", "promote", "rollback", "serve", "rank", "bench",
)  # fmt: skip
CHECKPOINT_COMMANDS = [f"checkpoint {name}" for name in ("ls", "inspect", "diff", "unshard", "reshard")]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recmoe", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])

    assert result.exit_code == 0
    assert [command for command in COMMANDS if command not in result.stdout] == []


@pytest.mark.parametrize(
    "command", [*COMMANDS, "data import", "data synthetic", "data check", "bench serve", *CHECKPOINT_COMMANDS]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert command in ("data", "checkpoint", "bench") or "Example: recmoe " in result.stdout


def test_help_loads_no_heavy_package_and_comes_at_once() -> None:
    code = (
        "import sys\nfrom recmoe.cli import main\nsys.argv = ['recmoe', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'pyarrow', 'mlflow', 'ray', 'pydantic', 'pandas') if name in sys.modules])"
    )

    start_s = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    took_s = time.perf_counter() - start_s

    assert run.stdout.splitlines()[-1] == "[]", run.stderr
    # Half a second on an idle machine; ten times that is a heavy import on a busy one.
    assert took_s < 5


def test_wrong_usage_exits_with_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_main(monkeypatch, "train")

    assert code == 2
    assert "CONFIG" in capsys.readouterr().err


def test_unknown_command_exits_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "trian") == 2


def test_errors_of_users_exit_with_one_and_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run_main(monkeypatch, "data", "import", "census", "--from", f"{tmp_path}/absent", "--to", str(tmp_path))

    output = capsys.readouterr()
    assert code == 1
    assert output.err.startswith(f"error: {tmp_path}/absent does not exist")
    assert "Traceback" not in output.err


def test_stopping_with_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recmoe.data.synthetic.write_synthetic", stopped)

    assert run_main(monkeypatch, "data", "synthetic", "--to", "x") == 130


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_full_disk_and_forbidden_folder_are_told_without_traceback(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, "as the system says", "some/file")

    monkeypatch.setattr("recmoe.data.synthetic.write_synthetic", failing)

    code = run_main(monkeypatch, "data", "synthetic", "--to", "x")

    assert code == 1
    assert capsys.readouterr().err == f"error: some/file: {MENDABLE[number]}\n"


def test_errors_of_programmers_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EBADF, "not the user's fault")

    monkeypatch.setattr("recmoe.data.synthetic.write_synthetic", failing)
    monkeypatch.setattr(sys, "argv", ["recmoe", "data", "synthetic", "--to", "x"])

    with pytest.raises(OSError, match="not the user's fault"):
        main()


def test_error_of_the_library_reaches_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise DataError("no rows")

    monkeypatch.setattr("recmoe.data.synthetic.write_synthetic", failing)

    assert run_main(monkeypatch, "data", "synthetic", "--to", "x") == 1


def test_warnings_of_every_package_have_one_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(
        "name: shop\ndata: {train: day.csv}\n"
        "inputs: {features: {item: {kind: id}}}\ntasks: {ctr: {kind: binary, label: click}}\n"
        "model: {architecture: {kind: shared_bottom}}\n"
    )
    (tmp_path / "notes.md").touch()

    code = run_main(monkeypatch, "daily", f"{tmp_path}/config.yaml", "--days", f"{tmp_path}/notes*")

    first, second = capsys.readouterr().err.splitlines()
    assert code == 1
    assert first == f"warning: {tmp_path}/notes.md is passed over: it is neither a folder nor a data file"
    assert second.startswith("error: no day matches")


@pytest.mark.parametrize("package", ["recmoe", "pipelines", "serving"])
def test_what_a_package_logs_as_an_error_is_not_called_a_warning(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def logging_an_error(*_: object, **__: object) -> None:
        logging.getLogger(f"{package}.part").error("the model cannot be served")
        raise DataError("no rows")

    monkeypatch.setattr("recmoe.data.synthetic.write_synthetic", logging_an_error)

    run_main(monkeypatch, "data", "synthetic", "--to", "x")

    assert capsys.readouterr().err == "error: the model cannot be served\nerror: no rows\n"


def test_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_main(monkeypatch, "--version")

    assert code == 0
    assert capsys.readouterr().out == f"recmoe {__version__}\n"


def test_terminal_with_few_letters_shows_the_others_as_question_marks() -> None:
    code = "import sys; from recmoe.cli import main; sys.argv = ['recmoe', 'data', '--help']; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}

    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)

    assert run.returncode == 0, run.stderr
