"""What `import recmoe` offers is pinned, and costs nothing before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import recmoe

NAMES = ["ModelBundle", "RankClient", "Ranker", "Registry", "errors", "evaluate", "fit", "load_experiment", "train"]


def test_public_names_are_these() -> None:
    found = {name: getattr(recmoe, name) for name in NAMES}

    assert recmoe.__all__ == NAMES
    assert set(NAMES) <= set(dir(recmoe))
    assert {name: value.__module__ for name, value in found.items() if name != "errors"} == {
        "ModelBundle": "recmoe.export.bundle",
        "RankClient": "recmoe.client.client",
        "Ranker": "recmoe.ranking.ranker",
        "Registry": "recmoe.registry.registry",
        "evaluate": "recmoe.face.fit",
        "fit": "recmoe.face.fit",
        "load_experiment": "recmoe.experiment",
        "train": "recmoe.face.fit",
    }
    assert recmoe.errors.RecmoeError.__module__ == "recmoe.errors"


def test_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match="module 'recmoe' has no attribute 'fitt'; it has ModelBundle, RankClient"):
        getattr(recmoe, "fitt")  # noqa: B009


def test_import_loads_nothing_heavy_and_works_after_torch() -> None:
    code = (
        "import recmoe, sys; print([m for m in ('torch', 'pyarrow', 'pandas', 'pydantic') if m in sys.modules])\n"
        "import torch; print(recmoe.Ranker.__name__)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)

    assert (run.stdout.split("\n")[:2], run.returncode) == (["[]", "Ranker"], 0), run.stderr
