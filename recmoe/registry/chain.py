"""chain_of: the versions that one is made of, where versions travel as deltas; as tags in the registry say."""

import re

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from recmoe.errors import RegistryError
from recmoe.export.contents import shown

DIGEST = "recmoe.bundle_digest"
"""The tag of a version that keeps the digest of its bundle, as it was registered."""
DELTA_OF = "recmoe.delta_of"
"""The tag of a version that travels as a delta: NAME/VERSION of its base."""
MAX_DELTAS = 16
"""Between a version and one that travels whole: a machine that has none of them fetches all."""

_BASE = re.compile(r"(?P<name>[^/]+)/(?P<version>\d{1,18})")


def chain_of(client: MlflowClient, version: ModelVersion) -> list[ModelVersion]:
    """A version, the one that it is a delta of, and so on, to one that travels whole.

    Raises:
        RegistryError: a base is not there any more, recmoe has not registered one of them, or there are too many.
    """
    found = [version]
    while (tag := found[-1].tags.get(DELTA_OF)) is not None:
        if len(found) > MAX_DELTAS:
            raise RegistryError(
                f"{called(version)} is a delta of a delta, and so on, more than {MAX_DELTAS} times; {_again(version)}"
            )
        found.append(_base(client, found[-1], tag))
    for one in found:
        registered_digest(one)
    return found


def called(version: ModelVersion) -> str:
    """A version as messages name it."""
    return f"version {version.version} of model {version.name}"


def registered_digest(version: ModelVersion) -> str:
    """The digest of its bundle that the registry has kept.

    Raises:
        RegistryError: recmoe has not registered it.
    """
    digest: str | None = version.tags.get(DIGEST)
    if digest is None:
        raise RegistryError(
            f"{called(version)} was not registered by recmoe: it has no tag {DIGEST}; name another version, or "
            "register its bundle with recmoe register"
        )
    return digest


def _base(client: MlflowClient, version: ModelVersion, tag: str) -> ModelVersion:
    match = _BASE.fullmatch(tag)
    if match is None:
        raise RegistryError(
            f"{called(version)} has the tag {DELTA_OF} {shown(tag)}, expected NAME/VERSION; {_again(version)}"
        )
    try:
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"{called(version)} is a delta of version {match['version']} of model {match['name']}, which the registry "
            f"does not have any more; {_again(version)}"
        ) from error


def _again(version: ModelVersion) -> str:
    return f"register its bundle again, whole: recmoe register BUNDLE --name {version.name}"
