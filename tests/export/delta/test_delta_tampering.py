"""Every file of a delta, changed in every way, hashes left or made anew: refused in words."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from recmoe.errors import BundleError
from recmoe.export.delta import DELTA, Delta, apply_delta
from recmoe.export.delta.document import hash_of, rows_file
from tests.export.tampering import WAYS, Place

ADVICE = re.compile("(copy|export|register) .*again|remove it")
_OF_BUNDLES = ("empty replay",)
"""Ways that need the whole of a bundle."""


def tampered(delta: Delta, folder: Path, way: str) -> Iterator[tuple[Place, str]]:
    """File by file the delta, which is whole but for this one; those that a way does not change are left out."""
    names = sorted(file.relative_to(delta.path).as_posix() for file in delta.path.rglob("*") if file.is_file())
    place = Place(folder / "delta", folder / "outside", folder / "mark")
    for name in names:
        for old in (place.bundle, place.outside):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(delta.path, place.bundle, copy_function=os.link)
        place.outside.mkdir()
        WAYS[way](place, name)
        path = place.bundle / name
        if path.is_file() and not path.is_symlink() and path.read_bytes() == (delta.path / name).read_bytes():
            continue
        yield place, name


def made_anew(place: Place) -> None:
    """The hashes of delta.json, as far as it can still be read."""
    try:
        document = json.loads((place.bundle / DELTA).read_bytes())
        document.pop("sha256")
        for name, rows in document["rows"].items():
            content = (place.bundle / rows_file(name)).read_bytes()
            rows |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        text = json.dumps({**document, "sha256": hash_of(document)}).encode()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return
    place.put(DELTA, text)


@pytest.mark.parametrize("is_anew", [False, True], ids=["hashes left", "hashes made anew"])
@pytest.mark.parametrize("way", [way for way in WAYS if way not in _OF_BUNDLES])
def test_changed_file_is_refused(
    delta: Delta, large_bundle_path: Path, tmp_path: Path, way: str, is_anew: bool
) -> None:
    num_cases = 0
    for place, name in tampered(delta, tmp_path, way):
        is_link = (place.bundle / name).is_symlink()
        if is_anew and not is_link and (place.bundle / name).is_file():
            made_anew(place)
        with pytest.raises(BundleError) as refused:
            apply_delta(Delta.read(place.bundle), large_bundle_path, tmp_path / "made")

        num_cases += 1
        words = str(refused.value)
        assert ADVICE.search(words), words
        assert "\n" not in words
        assert str(place.bundle) in words or Path(name).name in words
        assert not place.mark.exists(), "code has run"
        shutil.rmtree(tmp_path / "made", ignore_errors=True)

    assert num_cases >= 3
