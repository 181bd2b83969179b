"""What is made to deceive on purpose ends in words: before something foreign is read, run or allocated."""

import hashlib
import json
import pickle
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.ranking.ranker import Ranker
from tests.export.tampering import HUGE, Code

Sign = Callable[[Path], None]


CONTENTS: dict[str, bytes] = {
    "deep in its place": b'{"format": ' + b"[" * 190 + b"]" * 190 + b"}",
    "list": b"[]",
    "number": b"3",
    "text": b'"text"',
    "null": b"null",
    "no UTF-8": b'{"\xff": 1}',
    "zeros": bytes(1000),
    "huge header": b"\xff" * 8 + b"{}",
}
"""What somebody may write into a file and sign."""


def files_of(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def refusal(path: Path) -> str | None:
    """In what words a bundle is refused; None if it is loaded. Any other error ends the test."""
    try:
        Ranker.load(path)
    except BundleError as error:
        return str(error)
    return None


@pytest.fixture
def work(full_bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle to break that has every kind of file."""
    return Path(shutil.copytree(full_bundle_path, tmp_path / "work" / "bundle"))


@pytest.fixture
def restored(work: Path, full_bundle_path: Path) -> Callable[[], Iterator[str]]:
    """Name by name the files of the bundle, which is whole again at each."""

    def names() -> Iterator[str]:
        for name in files_of(full_bundle_path):
            yield name
            shutil.rmtree(work)
            shutil.copytree(full_bundle_path, work)

    return names


def test_full_bundle_has_every_kind_of_file(work: Path) -> None:
    kinds = {name if not name.startswith("tables/") else "tables/…" for name in files_of(work)}

    assert kinds == {
        "manifest.json", "config.json", "dense.safetensors", "tables.json", "tables/…", "report.json", "lineage.json",
        "replay.parquet", "replay_scores.parquet", "replay_encoded.safetensors", "encoder/encoder.json",
        "encoder/columns.arrow", "encoder/vocabulary_0.arrow", "encoder/dynamic_0.arrow",
    }  # fmt: skip
    assert refusal(work) is None


@pytest.mark.parametrize("content", CONTENTS)
def test_signed_content_that_does_not_fit_is_refused(
    work: Path, restored: Callable[[], Iterator[str]], sign: Sign, content: str
) -> None:
    for name in restored():
        (work / name).write_bytes(CONTENTS[content])
        if name != "manifest.json":
            sign(work)

        assert refusal(work) is not None, f"{name}: {content} was loaded"


@pytest.mark.parametrize(
    "name", ["../{}", "{folder}/{}", "tables/../../{}", "encoder\\..\\{}", "{}.pkl", "encoder/{}.py"]
)
def test_error_tells_nothing_of_a_foreign_file(work: Path, name: str) -> None:
    secret = work.parent / "secret"
    secret.write_bytes(b"s" * 31_337)
    listed = name.format("secret", folder=work.parent)
    manifest = json.loads((work / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"][listed] = {"size": 1, "sha256": "0" * 64}
    (work / "manifest.json").write_text(json.dumps(manifest))

    words = refusal(work)

    assert words is not None
    assert repr(listed) in words
    assert "31" not in words.replace(str(work.parent), "")


@pytest.mark.parametrize(
    "name", ["../secret", "{folder}/secret", "a" * 64 + ".pkl", "../tables/" + "a" * 64 + ".safetensors"]
)
def test_index_of_tables_leads_nowhere_else(work: Path, sign: Sign, name: str) -> None:
    index = json.loads((work / "tables.json").read_text())
    named = name.format(folder=work.parent)
    (work / "tables.json").write_text(json.dumps({table: [named] for table in index}))
    sign(work)

    with pytest.raises(BundleError, match=r"tables\.json names the file '.*' for '.*', which no bundle has; export it"):
        ModelBundle.load(work)


@pytest.mark.parametrize("name", ["../vocabulary_0.arrow", "{folder}/vocabulary_0.arrow", "encoder.json", "ids.pkl"])
@pytest.mark.parametrize("kind", ["vocabularies", "dynamic"])
def test_encoder_leads_nowhere_else(work: Path, sign: Sign, kind: str, name: str) -> None:
    document = json.loads((work / "encoder/encoder.json").read_text())
    named = name.format(folder=work.parent)
    for table, value in document[kind].items():
        document[kind][table] = {**value, "file": named} if kind == "dynamic" else named
    (work / "encoder/encoder.json").write_text(json.dumps(document))
    sign(work)

    with pytest.raises(BundleError, match=r"encoder\.json names the file '.*', which no encoder has"):
        ModelBundle.load(work)


@pytest.fixture
def peak_bytes() -> Callable[[], int]:
    """By how much the process has grown at most since the test began."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return lambda: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("architecture.num_experts", HUGE, r"model\.architecture\.num_experts is 100,000,000,000,000, and no weight"),
        ("architecture.num_experts", 9_000, "asks for a model that cannot be built: it asks for more weights than its"),
        ("architecture.expert_hidden", [HUGE], r"model\.architecture\.expert_hidden is 100,000,000,000,000"),
        ("architecture.expert_hidden", [9_000, 9_000], "it asks for more weights than its files hold"),
        ("architecture.expert_hidden", [9], r"has shape \[3, 8, \d+\], its config asks for \[3, 9, \d+\]"),
        ("towers.hidden", [HUGE, HUGE], r"model\.towers\.hidden is 100,000,000,000,000"),
        ("towers.hidden", [9_000, 9_000], "it asks for more weights than its files hold"),
        ("architecture", {"kind": "ple", "num_levels": HUGE}, r"architecture\.num_levels is 100,000,000,000,000"),
        ("architecture", {"kind": "ple", "num_levels": 9_000}, "it asks for more weights than its files hold"),
        ("architecture", {"kind": "mmoe", "num_experts": 2, "gate": {"kind": "top_k", "k": HUGE}}, r"gate\.k is 100,0"),
        ("trunk", {"kind": "rank_mixer", "num_blocks": HUGE}, r"model\.trunk\.num_blocks is 100,000,000,000,000"),
        ("trunk", {"kind": "rank_mixer", "num_blocks": 9_000}, "it asks for more weights than its files hold"),
    ],
)
def test_config_that_asks_for_more_than_its_weights_is_refused_without_room_for_it(
    work: Path, sign: Sign, peak_bytes: Callable[[], int], path: str, value: object, message: str
) -> None:
    config = json.loads((work / "config.json").read_text())
    *before, last = path.split(".")
    section = config["model"]
    for key in before:
        section = section[key]
    section[last] = value
    (work / "config.json").write_text(json.dumps(config))
    sign(work)

    with pytest.raises(BundleError, match=message):
        ModelBundle.load(work)

    assert peak_bytes() < 200e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": HUGE}, r"has shape \[\d+, 8\], its config asks for \[\d+, 100000000000004\]"),
        (
            {"item_id": {"kind": "id", "side": "item", "encoding": {"kind": "hash", "num_buckets": HUGE}}},
            r"item_id has shape \[51, 8\], its config asks for \[100000000000001, 8\]",
        ),
    ],
)
def test_encoder_that_asks_for_larger_tables_is_refused_without_room_for_them(
    work: Path,
    sign: Sign,
    shop_log: pa.Table,
    peak_bytes: Callable[[], int],
    changes: dict[str, Any],
    message: str,
) -> None:
    config = json.loads((work / "config.json").read_text())
    inputs = config["inputs"]
    config["inputs"] = (
        {**inputs, **changes} if "width" in changes else {**inputs, "features": {**inputs["features"], **changes}}
    )
    (work / "config.json").write_text(json.dumps(config))
    encoder = FeatureEncoder.fit(FeatureSchema.model_validate(config["inputs"]), [shop_log])
    encoder.save(work / "encoder")
    sign(work)
    manifest = json.loads((work / "manifest.json").read_text())
    del manifest["sha256"]
    (work / "manifest.json").write_text(json.dumps({**manifest, "schema_fingerprint": encoder.fingerprint}))

    with pytest.raises(BundleError, match=message):
        ModelBundle.load(work)

    assert peak_bytes() < 200e6


def positions(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The key paths of all values of a document, its own first."""
    yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from positions(document[key], (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = document.copy()
    changed[path[0]] = replaced(document[path[0]], path[1:], value)
    return changed


VALUES = ([], {}, 0, -1, HUGE, 1.5, "x", "../x", None, [1], {"a": 1}, True, float("nan"))


@pytest.mark.parametrize(
    "name", ["manifest.json", "config.json", "tables.json", "report.json", "lineage.json", "encoder/encoder.json"]
)
def test_values_of_other_types_end_in_words_or_change_nothing(work: Path, sign: Sign, name: str) -> None:
    document = json.loads((work / name).read_text())
    document.pop("sha256", None)
    cases = [(path, value) for path in positions(document) for value in VALUES]
    original = (work / "manifest.json").read_bytes()

    for path, value in random.Random(0).sample(cases, 40):
        (work / "manifest.json").write_bytes(original)
        (work / name).write_text(json.dumps(replaced(document, path, value)))
        if name != "manifest.json":
            sign(work)

        words = refusal(work)

        assert words is None or "\n" not in words, (path, value, words)


def test_replay_of_other_tasks_is_refused(work: Path, sign: Sign) -> None:
    path = work / "replay_scores.parquet"
    scores = pq.read_table(path)
    pq.write_table(scores.rename_columns(["cvr", "ctr", "ctcvr"]), path)
    sign(work)

    with pytest.raises(
        BundleError, match=r"its replay is of the tasks cvr, ctr, ctcvr, its config has ctr, cvr, ctcvr"
    ):
        ModelBundle.load(work)


def test_extension_type_of_arrow_runs_no_code(work: Path, sign: Sign, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hidden = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Code(mark)),
    }
    vocabulary = work / "encoder" / "vocabulary_0.arrow"
    with pa.OSFile(str(vocabulary)) as source, pa.ipc.open_file(source) as reader:
        ids = reader.read_all()["id"]
    schema = pa.schema([pa.field("id", ids.type, metadata=hidden)])
    with pa.OSFile(str(vocabulary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table([ids], schema=schema))
    sign(work)

    refusal(work)

    assert not mark.exists()


def test_weights_of_another_type_are_refused(work: Path, sign: Sign) -> None:
    dense = safetensors.torch.load_file(work / "dense.safetensors")
    name = next(iter(dense))
    (work / "dense.safetensors").write_bytes(safetensors.torch.save({**dense, name: dense[name].double()}))
    sign(work)

    with pytest.raises(BundleError, match=rf"{name} is of type float64, the model's of float32; export it again"):
        ModelBundle.load(work)


def test_pieces_that_stand_for_many_are_refused_without_room_for_them(
    work: Path, sign: Sign, peak_bytes: Callable[[], int]
) -> None:
    index = json.loads((work / "tables.json").read_text())
    name = "input_layer.tables.tables.item_id"
    (work / "tables.json").write_text(json.dumps({**index, name: index[name] * 200_000}))
    sign(work)

    with pytest.raises(BundleError, match=r"tables\.json makes tables of [\d,]+ bytes of files of [\d,]+; export"):
        ModelBundle.load(work)

    assert peak_bytes() < 400e6


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"rows": torch.zeros(3)}, "holds no rows of a table"),
        ({"rows": torch.zeros(3, 4), "more": torch.zeros(3)}, "holds no rows of a table"),
        ({"rows": torch.zeros(3, 4).to(torch.float8_e4m3fn)}, "rows is of type F8_E4M3, which no model has"),
        ({"rows": torch.zeros(3, 4)}, r"the pieces of .* do not fit each other; export the bundle again"),
    ],
)
def test_piece_of_a_table_that_is_none_is_refused(
    work: Path, sign: Sign, tensors: dict[str, torch.Tensor], message: str
) -> None:
    (work / "tables" / "new").write_bytes(safetensors.torch.save(tensors))
    named = Path(
        shutil.move(work / "tables" / "new", work / "tables" / f"{digest(work / 'tables' / 'new')}.safetensors")
    )
    index = json.loads((work / "tables.json").read_text())
    (work / "tables.json").write_text(json.dumps({table: [*files, named.name] for table, files in index.items()}))
    sign(work)

    with pytest.raises(BundleError, match=message):
        ModelBundle.load(work)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
