"""Names that MLflow takes, checked before anything is uploaded, and addresses as they may be shown."""

import re

from recmoe.errors import RegistryError

MAX_NAME = 250
"""Characters of a model's or experiment's name; databases behind MLflow keep 256."""
MAX_ALIAS = 200
"""Characters of an alias, which is a part of the key of a tag."""

# A password that nobody has encoded may hold / and @. In paths of files an @ is only a letter.
_CREDENTIALS = re.compile(r"(?<=://)(?<!sqlite://)(?<!file://)(?:\S*:\S*|[^/\s]*)@")
_SECRET_PARAMETER = re.compile(r"(?i)([?&;]?\b(?:password|passwd|pwd|sslpassword|token|secret)=)[^&;\s]+")


def check_model_name(name: str) -> str:
    """The name of a registered model, if it can be one.

    Raises:
        RegistryError: it cannot; the rule is in the message.
    """
    if fault := name_fault(name, forbidden="/:@'\"\\%"):
        raise RegistryError(f"{name!r} cannot be the name of a registered model: {fault}")
    return name


def check_alias(alias: str) -> str:
    """The name of an alias, if it can be one.

    Raises:
        RegistryError: it cannot; the rule is in the message.
    """
    is_reserved = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if is_reserved or not re.fullmatch(rf"[\w\-]{{1,{MAX_ALIAS}}}", alias):
        raise RegistryError(
            f"{alias!r} cannot be an alias: an alias has 1 to {MAX_ALIAS} letters, digits, _ and -, "
            "and is neither latest nor v and a number, which MLflow keeps for itself"
        )
    return alias


def name_fault(name: str, *, forbidden: str = "") -> str | None:
    """Why MLflow would refuse a name; None where it would not."""
    if not name.strip() or name != name.strip():
        return "a name is not blank, and does not begin or end with a blank"
    if len(name) > MAX_NAME:
        return f"it has {len(name)} characters; a name may have {MAX_NAME}"
    found = sorted({character for character in name if character in forbidden or not character.isprintable()})
    if found:
        rule = f"a name holds none of {' '.join(forbidden)} and" if forbidden else "a name holds"
        return f"{rule} no line breaks or other control characters, found {', '.join(map(repr, found))}"
    return None


def without_password(text: str) -> str:
    """A text, or an address, in which addresses have lost user and password."""
    return _SECRET_PARAMETER.sub(r"\1***", _CREDENTIALS.sub("", text))
