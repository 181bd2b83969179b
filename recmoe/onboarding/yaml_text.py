"""yaml_text: names of any script as YAML that reads back exactly, and as comments that stay comments."""

import re
from typing import Any

_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    """A YAML scalar that a config reads back as this very string."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in _WORDS:
        return text
    # What looks like a variable would be filled in.
    return '"' + shown(re.sub(r"\$\{(?=[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\})", "$${", text)) + '"'


def shown(text: str) -> str:
    """A text on one line: what cannot be printed is escaped as in quotes."""
    return "".join(_ESCAPES.get(letter) or (letter if letter.isprintable() else _escape(letter)) for letter in text)


def flow(value: Any) -> str:
    """A string, number, list or mapping of them on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(part) for part in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else f"{value:.17g}"


def aligned(entries: list[tuple[str, str]]) -> list[str]:
    """Lines with their comments one below the other."""
    width = min(max((len(text) for text, _ in entries), default=0), 90)
    return [f"{text:<{width}}  # {shown_comment(note)}" if note else text for text, note in entries]


def shown_comment(text: str) -> str:
    """A comment on one line; quotes and backslashes stay as they are."""
    return "".join(letter if letter.isprintable() else _ESCAPES.get(letter, _escape(letter)) for letter in text)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
