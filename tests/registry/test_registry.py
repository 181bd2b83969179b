"""Versions are registered once proved, promoted with a log, rolled back by it."""

import shutil
import uuid
from pathlib import Path

import pytest

from recmoe.errors import BundleError, RegistryError
from recmoe.registry.registry import Registry, split_alias

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


def test_registered_version_carries_facts_and_resolves_to_its_bundle(
    registry: Registry, bundle_path: Path, tmp_path: Path
) -> None:
    registered = registry.register(bundle_path)

    assert (registered.name, registered.version) == ("shop", "1")
    tags = registry._client.get_model_version("shop", "1").tags
    assert len(tags["recmoe.bundle_digest"]) == 64
    assert len(tags["recmoe.feature_schema_hash"]) == 64
    assert tags["recmoe.tasks"] == "ctr,cvr,ctcvr"
    assert tags["recmoe.eval.cvr.auc.click"] == "0.75"
    resolved = registry.resolve("models:/shop/1", cache=tmp_path / "cache")
    assert resolved.version == "1"
    assert (resolved.path / "manifest.json").read_bytes() == (bundle_path / "manifest.json").read_bytes()


def test_damaged_bundle_is_not_registered(registry: Registry, bundle_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "copy"))
    (copy / "dense.safetensors").write_bytes(b"")

    with pytest.raises(BundleError, match=r"dense\.safetensors is damaged"):
        registry.register(copy)


def test_champion_moves_forth_and_back_with_a_log(registry: Registry, bundle_path: Path, tmp_path: Path) -> None:
    for _ in range(3):
        registry.register(bundle_path)

    for version in ("1", "2", "3"):
        registry.promote("shop", version, by="ann", note=f"take {version}")
    first = registry.rollback("shop", by="bob")
    second = registry.rollback("shop", by="bob")

    assert (first.previous, first.version) == ("3", "2")
    assert (second.previous, second.version) == ("2", "1")
    assert registry.resolve("models:/shop@champion", cache=tmp_path).version == "1"
    told = [(entry.action, entry.previous, entry.version, entry.by) for entry in registry.history("shop")]
    assert told == [
        ("promote", None, "1", "ann"),
        ("promote", "1", "2", "ann"),
        ("promote", "2", "3", "ann"),
        ("rollback", "3", "2", "bob"),
        ("rollback", "2", "1", "bob"),
    ]
    tags = registry._client.get_model_version("shop", "3").tags
    assert (tags["recmoe.promoted_by"], tags["recmoe.promoted_from"]) == ("ann", "2")
    with pytest.raises(RegistryError, match="model shop has no earlier champion to go back to: promote 1, promote 2"):
        registry.rollback("shop")


def test_aliases_of_a_model_are_told(registry: Registry, bundle_path: Path) -> None:
    for version in ("1", "2"):
        registry.register(bundle_path)
        registry.promote("shop", version, alias="champion" if version == "2" else "challenger")

    assert registry.aliases("shop") == {"champion": "2", "challenger": "1"}
    with pytest.raises(RegistryError, match="has no model shoes; its models: shop"):
        registry.aliases("shoes")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("models:/shop@champion", ("shop", "champion")),
        ("models:/shop/3", None),
        ("models:/shop@champion/3", None),
        ("runs/first", None),
    ],
)
def test_source_may_name_an_alias(source: str, found: tuple[str, str] | None) -> None:
    assert split_alias(source) == found


def test_alias_moved_by_other_means_can_be_rolled_back(registry: Registry, bundle_path: Path) -> None:
    registry.register(bundle_path)
    registry.register(bundle_path)
    registry.promote("shop", "1")
    registry._client.set_registered_model_alias("shop", "champion", "2")

    moved = registry.rollback("shop")

    assert (moved.previous, moved.version) == ("2", "1")
    assert [entry.action for entry in registry.history("shop")] == ["promote", "found", "rollback"]


def test_rollback_goes_to_an_earlier_champion_that_is_named(registry: Registry, bundle_path: Path) -> None:
    for version in ("1", "2", "3"):
        registry.register(bundle_path)
        registry.promote("shop", version)

    moved = registry.rollback("shop", to="1")

    assert (moved.previous, moved.version) == ("3", "1")
    with pytest.raises(
        RegistryError, match=r"version 3 of model shop was rolled back from: promote 1, .*, rollback 1; p"
    ):
        registry.rollback("shop", to="3")
    with pytest.raises(RegistryError, match="has no version 9 of model shop"):
        registry.rollback("shop", to="9")


def test_version_that_is_no_way_back_is_told_with_the_command_that_helps(registry: Registry, bundle_path: Path) -> None:
    for _ in range(4):
        registry.register(bundle_path)
    for version in ("1", "2", "3"):
        registry.promote("shop", version)
    registry.promote("shop", "1", alias="night")
    registry.rollback("shop")

    for version, message in {
        "2": "version 2 of model shop is champion already: promote 1, promote 2, promote 3, rollback 2",
        "3": r"version 3 of model shop was rolled back from: promote 1, .*; promote it again: recmoe promote shop 3",
        "4": r"version 4 of model shop never was champion: promote 1, .*; promote it: recmoe promote shop 4",
    }.items():
        with pytest.raises(RegistryError, match=f"^{message}$"):
            registry.rollback("shop", to=version)
    with pytest.raises(RegistryError, match=r"never was night: promote 1; promote it: recmoe promote shop 2 --alias n"):
        registry.rollback("shop", to="2", alias="night")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", r"'a/b' cannot be the name of a registered model: a name holds none of / : @ .*, found '/'"),
        ("it's", "found"),
        ("two\nlines", "found"),
        (" ", "a name is not blank"),
        ("x" * 251, "it has 251 characters; a name may have 250"),
    ],
)
def test_name_that_no_registry_takes_is_refused_before_anything_is_uploaded(
    registry: Registry, bundle_path: Path, name: str, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        registry.register(bundle_path, name=name)

    assert registry._client.search_experiments(filter_string="name = 'recmoe'") == []


@pytest.mark.parametrize("alias", ["latest", "v3", "the best", "", "a" * 201])
def test_alias_that_no_registry_takes_is_refused(registry: Registry, alias: str) -> None:
    with pytest.raises(RegistryError, match=r"cannot be an alias: an alias has 1 to 200 letters, digits, _ and -"):
        registry.promote("shop", "1", alias=alias)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("models:/shop@champion", r"has no model shop@champion; promote one of its versions: 1"),
        ("models:/shop/9", r"has no version 9 of model shop; there are 1"),
        ("models:/shopp/1", r"has no version 1 of model shopp; its models: shop"),
        ("models:/shopp@champion", r"has no model shopp@champion; its models: shop"),
        ("models:/shop", r"expected models:/NAME@ALIAS, such as @champion, or models:/NAME/VERSION"),
    ],
)
def test_source_that_is_not_there_is_named_with_what_is(
    registry: Registry, bundle_path: Path, tmp_path: Path, source: str, message: str
) -> None:
    registry.register(bundle_path)

    with pytest.raises(RegistryError, match=message):
        registry.resolve(source, cache=tmp_path)


def test_unknown_model_is_not_promoted(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="it has no models yet, register one first"):
        registry.promote("shop", "1")
    with pytest.raises(RegistryError, match="has no model shop; it has no models yet"):
        registry.rollback("shop")


def test_never_promoted_model_cannot_be_rolled_back(registry: Registry, bundle_path: Path) -> None:
    registry.register(bundle_path)

    with pytest.raises(RegistryError, match="no earlier champion to go back to: it was never promoted"):
        registry.rollback("shop")


def test_folder_resolves_to_itself(registry: Registry, bundle_path: Path, tmp_path: Path) -> None:
    resolved = registry.resolve(str(bundle_path), cache=tmp_path)

    assert (resolved.path, resolved.version) == (bundle_path, None)


def test_version_joins_the_run_it_came_from(registry: Registry, bundle_path: Path) -> None:
    client = registry._client
    run = client.create_run(registry._store.experiment_id("recmoe"))

    registry.register(bundle_path, name="other", run_id=run.info.run_id)

    assert client.get_model_version("other", "1").run_id == run.info.run_id


def test_version_of_a_run_that_another_store_recorded_gets_a_run_of_its_own(
    registry: Registry, bundle_path: Path
) -> None:
    elsewhere = uuid.uuid4().hex

    registered = registry.register(bundle_path, run_id=elsewhere)

    client = registry._client
    run = client.get_run(client.get_model_version("shop", str(registered.version)).run_id)
    assert (run.info.run_name, run.info.status) == ("register shop", "FINISHED")
    assert run.info.run_id != elsewhere


def test_run_that_cannot_be_one_is_refused(registry: Registry, bundle_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"MLflow at sqlite.*: Invalid value .* for parameter 'run_id'"):
        registry.register(bundle_path, run_id="not/a run")

    assert registry._client.search_registered_models() == []


def test_registry_in_another_place_has_its_versions(
    registry: Registry, bundle_path: Path, mlflow_folder: Path, tmp_path: Path
) -> None:
    registry.register(bundle_path)
    registry.promote("shop", "1")
    moved = mlflow_folder.rename(tmp_path / "elsewhere")

    found = Registry.connect(folder=moved).resolve("models:/shop@champion", cache=tmp_path / "cache")

    assert found.path.is_relative_to(moved / "artifacts")
    assert (found.path / "manifest.json").read_bytes() == (bundle_path / "manifest.json").read_bytes()
