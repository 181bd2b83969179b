"""Files and functions stay small enough to read in one go."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}

FILES = sorted(path for folder in ("recmoe", "serving", "pipelines") for path in (ROOT / folder).rglob("*.py"))


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}

    too_long = {name: length for name, length in lengths.items() if length > MAX_FILE_LINES}

    assert FILES
    assert not too_long


def test_no_function_is_longer_than_sixty_lines() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]

    assert not too_long, "\n".join(too_long)


def test_files_are_named_for_what_they_hold() -> None:
    vague = [str(path.relative_to(ROOT)) for path in FILES if path.name in FORBIDDEN_NAMES]

    assert not vague


def test_every_package_has_an_init_file() -> None:
    folders = {path.parent for path in FILES}

    without = sorted(str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists())

    assert not without


def test_every_file_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert not silent


def test_text_is_read_and_written_in_utf_8_whatever_the_locale_says() -> None:
    text_modes = {"r", "w", "a", "x", "r+", "w+", "a+"}
    silent = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            if name in ("read_text", "write_text") or (name == "open" and modes & text_modes):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert not silent, "give encoding: " + ", ".join(silent)
