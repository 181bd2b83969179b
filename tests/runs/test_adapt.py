"""A domain or a task from few rows: folds, the choice of steps, what stays as it was, and what is refused."""

import logging
from copy import deepcopy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.errors import BundleError, ConfigError, DataError, RecmoeError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.ranking.ranker import Ranker
from recmoe.runs.adapt import NUM_FOLDS, Adapted, Adapter, adapt
from recmoe.runs.derived import Derivation
from recmoe.runs.few_rows import copy_of, encoded
from recmoe.runs.origin import find_origin
from recmoe.runs.train import RunResult

Finished = tuple[ExperimentConfig, RunResult]

SAVED = "tasks.save={kind: binary, label: saved}"


def column(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


@pytest.fixture(scope="module")
def clicked(shop_log: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 rows of a domain where everything is clicked."""
    path = tmp_path_factory.mktemp("few") / "clicked.parquet"
    pq.write_table(column(shop_log.slice(0, 80), "click", np.ones(80, np.int64)), path)
    return path


@pytest.fixture(scope="module")
def saved(shop_log: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows with an outcome that the model does not know: cheap items are saved."""
    path = tmp_path_factory.mktemp("few") / "saved.parquet"
    cheap = np.asarray(shop_log["price"]) < 15
    pq.write_table(shop_log.append_column("saved", pa.array(cheap.astype(np.int8))), path)
    return path


def adapted(run: Path, target: Path, data: Path, *overrides: str, steps: int | None = None) -> Adapted:
    origin = find_origin(str(run), made_by="adapt")
    cache = target.with_name(f"{target.name}-rows")
    return adapt(origin, target, paths=[str(data)], steps=steps, overrides=overrides, cache_dir=cache)


def test_adapted_bundle_knows_the_domain_and_loads_where_bundles_do(
    finished: Finished, clicked: Path, tmp_path: Path
) -> None:
    run = finished[1].folder
    files = {path: path.read_bytes() for path in sorted(run.bundle.rglob("*")) if path.is_file()}
    before, few = ModelBundle.load(run.bundle), pq.read_table(clicked)

    made = adapted(run.root, tmp_path / "new", clicked, "adaptation.lr=0.3")

    after = Ranker.load(tmp_path / "new").bundle
    assert (made.num_rows, made.is_chosen) == (80, True)
    assert made.steps > 0
    assert made.losses_S[made.steps] == min(made.losses_S) < made.losses_S[0]
    assert after.predict(few)[:, 0].mean() > before.predict(few)[:, 0].mean() + 0.1
    assert made.here.num_rows == 80
    held_back, then = made.here.metrics_after["ctr.logloss[all]"], made.here.metrics_before["ctr.logloss[all]"]
    assert held_back is not None
    assert then is not None
    assert held_back < then
    # What it costs elsewhere: clicks of the log do not follow those of the domain.
    assert (made.cost.num_rows, made.cost.metrics_before is not None) == (120, True)
    assert after.lineage == Lineage("adapt", str(run.root), before.digest)
    assert files == {path: path.read_bytes() for path in sorted(run.bundle.rglob("*")) if path.is_file()}


def test_same_seed_gives_the_same_model(finished: Finished, clicked: Path, shop_log: pa.Table, tmp_path: Path) -> None:
    run = finished[1].folder.root

    first, again, other = (
        adapted(run, tmp_path / name, clicked, "adaptation.batch_size=16", *overrides, steps=3).bundle.predict(shop_log)
        for name, overrides in (("first", ()), ("again", ()), ("other", ("seed=4",)))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_model_stays_as_it_is_where_steps_make_it_worse(finished: Finished, shop_log: pa.Table, tmp_path: Path) -> None:
    run = finished[1].folder
    pq.write_table(shop_log.slice(0, 60), tmp_path / "few.parquet")

    made = adapted(run.root, tmp_path / "new", tmp_path / "few.parquet", "adaptation.lr=2")

    assert (made.steps, made.is_chosen) == (0, True)
    assert np.array_equal(made.bundle.predict(shop_log), ModelBundle.load(run.bundle).predict(shop_log))


def test_rows_held_back_are_predicted_by_what_has_not_seen_them(
    finished: Finished, shop_log: pa.Table, clicked: Path, tmp_path: Path
) -> None:
    origin = find_origin(str(finished[1].folder.root), made_by="adapt")
    derivation = Derivation.of(origin.load(), cache_dir=tmp_path, overrides=["adaptation.batch_size=80"])
    config, encoder = derivation.config, derivation.encoder
    rows = encoded(derivation.few_rows([str(clicked)]), encoder, cache_dir=tmp_path)
    copy = copy_of(origin, config, encoder)
    naive = deepcopy(copy.model)
    adapter = Adapter(copy, config, rows)

    losses_S, logits_SNZ = adapter.held_back(2)

    fold_N = adapter.fold_N
    visits = np.asarray(shop_log["visit"])[:80]
    assert all(len(set(fold_N[visits == visit])) == 1 for visit in set(visits))
    # 16 visits of 5 rows each.
    assert sorted(np.bincount(fold_N)) == [15, 15, 15, 15, 20]
    for fold in range(NUM_FOLDS):
        model = deepcopy(naive).train()
        dense = [weight for name, weight in model.named_parameters() if ".tables." not in name]
        batch, held = (rows.batch(np.flatnonzero(mask)) for mask in (fold_N != fold, fold_N == fold))
        for _ in range(2):
            loss, _ = model(batch)
            found = torch.autograd.grad(loss, dense, allow_unused=True)
            with torch.no_grad():
                for weight, gradient in zip(dense, found, strict=True):
                    weight -= config.adaptation.lr * (0 if gradient is None else gradient)
        expected_BZ = model.eval().ranker(held).logits_BZ.detach().numpy()
        np.testing.assert_allclose(logits_SNZ[2][fold_N == fold], expected_BZ, rtol=1e-4, atol=1e-5)
    everything = naive.eval()(rows.batch(np.arange(80)))[0]
    assert losses_S[0] == pytest.approx(everything.item(), rel=1e-5)


def test_new_task_learns_and_others_keep_their_predictions(
    finished: Finished, saved: Path, shop_log: pa.Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = finished[1].folder
    before = ModelBundle.load(run.bundle)

    with caplog.at_level(logging.WARNING):
        made = adapted(run.root, tmp_path / "new", saved, SAVED, "adaptation.steps=60", "adaptation.lr=0.5")

    after = Ranker.load(tmp_path / "new").bundle
    assert after.tasks.names == ("ctr", "cvr", "ctcvr", "save")
    old = [after.tasks.names.index(name) for name in before.tasks.names]
    assert np.abs(after.predict(shop_log)[:, old] - before.predict(shop_log)).max() < 1e-6
    auc = made.here.metrics_after["save.auc[all]"]
    assert auc is not None
    assert auc > 0.8
    assert "save.auc[all]" not in made.here.metrics_before
    assert "the test split has no column saved: nothing is measured there" in caplog.text
    assert made.cost.tasks == ()


def test_new_task_may_move_the_rest(finished: Finished, saved: Path, shop_log: pa.Table, tmp_path: Path) -> None:
    run = finished[1].folder
    names = (f"data.test={saved}", SAVED)

    made = adapted(run.root, tmp_path / "new", saved, *names, "adaptation.weights=all", "adaptation.lr=3", steps=20)

    before = ModelBundle.load(run.bundle)
    assert np.abs(made.bundle.predict(shop_log)[:, 0] - before.predict(shop_log)[:, 0]).max() > 1e-5
    assert {task.task for task in made.cost.tasks} == {"ctr", "cvr", "ctcvr"}
    assert made.cost.num_rows == 200


def test_new_task_begins_at_the_base_rate_of_the_rows(
    finished: Finished, saved: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    made = adapted(finished[1].folder.root, tmp_path / "new", saved, SAVED, steps=0)

    share = np.asarray(pq.read_table(saved)["saved"]).mean()
    found_N = made.bundle.predict(shop_log)[:, 3]
    assert found_N == pytest.approx(np.full(200, share), abs=5e-3)


def test_task_without_labels_is_told_and_the_others_learn(
    finished: Finished, shop_log: pa.Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = column(shop_log.slice(0, 60), "click", np.zeros(60, np.int64))
    pq.write_table(column(few, "purchase", np.zeros(60, np.int64)), tmp_path / "few.parquet")

    adapted(finished[1].folder.root, tmp_path / "new", tmp_path / "few.parquet", steps=1)

    assert "no row to adapt to has a label of cvr, which learns nothing of its own" in caplog.text


def unlabelled(table: pa.Table) -> pa.Table:
    nothing = pa.nulls(table.num_rows, pa.int64())
    return column(column(table, "click", nothing), "purchase", nothing)


REFUSED: list[tuple[str, str, type[RecmoeError], str]] = [
    ("short", "", DataError, r"hold 4 groups \(inputs\.group\); 10 at least are needed"),
    ("unlabelled", "", DataError, r"no row of the data to adapt to has a label of ctr, cvr, ctcvr; give rows"),
    ("unsaved", SAVED, DataError, r"has a label of save; give rows"),
    ("narrow", "", SchemaError, r"few\.parquet.*price"),
    ("whole", SAVED, SchemaError, r"few\.parquet.*saved"),
    (
        "whole",
        "model.towers.hidden=[5]",
        ConfigError,
        r"model would be another than in .* train --warm-start any change",
    ),
    ("whole", "tasks.cvr.available=reports", ConfigError, r"tasks\.cvr would be another than in"),
    ("whole", "tasks.both={kind: product, of: [ctr, cvr]}", ConfigError, r"both has no weights of its own to learn"),
]


@pytest.mark.parametrize(("kind", "override", "error", "message"), REFUSED)
def test_what_cannot_be_adapted_to_is_refused(
    finished: Finished,
    shop_log: pa.Table,
    tmp_path: Path,
    kind: str,
    override: str,
    error: type[RecmoeError],
    message: str,
) -> None:
    few = {
        "short": shop_log.slice(0, 20),
        "unlabelled": unlabelled(shop_log),
        "narrow": shop_log.drop_columns(["price"]),
        "unsaved": shop_log.append_column("saved", pa.nulls(200, pa.int8())),
        "whole": shop_log,
    }[kind]
    pq.write_table(few, tmp_path / "few.parquet")

    with pytest.raises(error, match=message):
        adapted(
            finished[1].folder.root,
            tmp_path / "new",
            tmp_path / "few.parquet",
            *([override] if override else []),
            steps=1,
        )


def test_folder_that_is_there_is_refused_before_anything_else(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()

    with pytest.raises(BundleError, match="exists already; choose another folder"):
        adapted(finished[1].folder.root, tmp_path / "new", tmp_path / "missing.parquet", steps=1)
