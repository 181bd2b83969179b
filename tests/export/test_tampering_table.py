"""Every file of a bundle, changed in every way, hashes left or made anew, in a folder or a registry: refused in words.

What is whole in itself once its hashes are made anew is another model: a folder says nothing against it, and a registry
knows that it is not what was registered.
"""

import ctypes
import os
import re
import select
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import BundleError, RegistryError
from recmoe.ranking.ranker import Ranker
from recmoe.registry.registry import Registry
from tests.export.tampering import WAYS, Place, made_anew

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

MAX_S = 5.0
"""Seconds of a core for one load; most take .05."""
MAX_BYTES = 300e6
"""By which one load may let the process grow."""
ADVICE = re.compile("(copy|export|fit|evaluate|register) .*(again|anew)|remove it|do not (load|use)|give the folder")
UNREADABLE = ("cut in half", "emptied", "pickle", "pickle of torch", "deep JSON", "deep columns")
"""Ways after which a file cannot be read at all; after others it may contradict another one."""
MAY_LOAD = {
    "a bit early on": {"tables", "replay"},
    "a bit in the middle": {"dense.safetensors", "tables", "encoder", "replay", "lineage.json", "manifest.json"},
    "last bits": {"tables"},
    "longer": {"encoder"},
    "removed": {"report.json", "lineage.json"},
}
"""Kinds of files that may be whole in themselves when their hashes are made anew: another weight, id or row."""

NAMED = {"outside path": "manifest.json", "absolute path": "manifest.json", "empty replay": "replay"}
"""What may be named where a way changes more than one file."""

Load = Callable[[], object]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, full_bundle_path: Path) -> Iterator[Registry]:
    """One that has the bundle as version 1 of shop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry = Registry.connect(folder=tmp_path_factory.mktemp("registry"))
        registry.register(full_bundle_path)
        yield registry


@pytest.fixture(scope="module")
def place(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The registered version's bundle."""
    bundle = registry.resolve("models:/shop/1", cache=tmp_path_factory.mktemp("cache")).path
    return Place(bundle, bundle.parent / "outside", bundle.parent / "mark")


@pytest.fixture
def load_registered(registry: Registry, tmp_path: Path) -> Load:
    return lambda: Ranker.load(registry.resolve("models:/shop/1", cache=tmp_path).path)


def tampered(place: Place, pristine: Path, way: str, *, is_anew: bool) -> Iterator[str]:
    """File by file the bundle, which is whole but for this one; those that a way does not change are left out."""
    names = sorted(file.relative_to(pristine).as_posix() for file in pristine.rglob("*") if file.is_file())
    tables = [name for name in names if name.startswith("tables/")]
    # Tables are alike: one of them will do.
    for name in sorted({*names} - {*tables[1:]}):
        for folder in (place.bundle, place.outside):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, place.bundle, copy_function=os.link)
        place.outside.mkdir()
        WAYS[way](place, name)
        path = place.bundle / name
        if path.is_file() and not path.is_symlink() and path.read_bytes() == (pristine / name).read_bytes():
            continue
        if is_anew:
            made_anew(place)
        yield name


def refusal(place: Place, load: Load) -> str | None:
    """In what words a bundle is refused; None where it is loaded. Any other error ends the test."""
    with unopened(place.outside), bounded():
        try:
            load()
        except (BundleError, RegistryError) as error:
            return str(error)
        finally:
            assert not place.mark.exists(), "code has run"
    return None


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, little time and memory is used; AssertionError otherwise."""
    # Linux forgets what the process has had at most.
    Path("/proc/self/clear_refs").write_text("5")
    num_bytes, since_s = memory("VmRSS"), time.process_time()
    yield
    assert time.process_time() - since_s < MAX_S
    assert memory("VmHWM") - num_bytes < MAX_BYTES


def memory(kind: str) -> float:
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return float(found[1]) * 1024


@contextmanager
def unopened(folder: Path) -> Iterator[None]:
    """Inside, no library opens anything of a folder; AssertionError otherwise."""
    system, on_open = ctypes.CDLL(None), 0x20
    watch = system.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0
    try:
        assert system.inotify_add_watch(watch, os.fsencode(folder), on_open) >= 0
        yield
        assert not is_ready(watch), f"something in {folder} was opened"
    finally:
        os.close(watch)


def is_ready(file: int) -> bool:
    return file in select.select([file], [], [], 0)[0]


def kind_of(name: str) -> str:
    folder, _, _ = name.partition("/")
    return "replay" if name.startswith("replay") else folder


def test_watchers_see_what_they_look_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(AssertionError, match="was opened"), unopened(tmp_path):
        pa.OSFile(str(tmp_path / "file")).close()
    with pytest.raises(AssertionError), bounded():
        np.ones(int(2 * MAX_BYTES), np.uint8)


@pytest.mark.parametrize("way", WAYS)
def test_changed_file_is_refused_by_its_name(
    place: Place, full_bundle_path: Path, load_registered: Load, way: str
) -> None:
    num_cases = 0
    for name in tampered(place, full_bundle_path, way, is_anew=False):
        by_folder = refusal(place, lambda: Ranker.load(place.bundle))
        by_registry = refusal(place, load_registered)

        num_cases += 1
        for words in (by_folder, by_registry):
            assert words is not None, f"{name} was loaded"
            assert Path(name).name in words or NAMED.get(way, name) in words, words
            assert ADVICE.search(words), words
            assert "\n" not in words

    assert num_cases > 10
    print(f"{way}, hashes left: {num_cases} files")


@pytest.mark.parametrize("way", WAYS)
def test_changed_file_whose_hashes_are_made_anew_is_refused_or_makes_another_model(
    place: Place, full_bundle_path: Path, load_registered: Load, way: str
) -> None:
    num_cases, loaded, registered = 0, set(), set()
    for name in tampered(place, full_bundle_path, way, is_anew=True):
        by_folder = refusal(place, lambda: Ranker.load(place.bundle))
        by_registry = refusal(place, load_registered)

        num_cases += 1
        if by_folder is None:
            loaded.add(kind_of(name))
        if by_registry is None:
            registered.add(name)
        for words in filter(None, (by_folder, by_registry)):
            told = Path(name).name if not name.startswith("tables/") else "tables/"
            is_between = way not in UNREADABLE and (words.startswith("replay: ") or str(place.bundle) in words)
            assert told in words or is_between or "is not what was registered" in words, words
            assert ADVICE.search(words), words
            assert "\n" not in words

    assert num_cases > 10
    assert loaded <= MAY_LOAD.get(way, set())
    # Of the manifest the registry keeps the digest of the files.
    assert registered <= loaded & {"manifest.json"}
    print(f"{way}, hashes made anew: {num_cases} files, {len(loaded)} of them make another model")
