"""The comparison of architectures: variants, budgets, sizes, words; and a tiny one for real, which goes on."""

# R resamples

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import recmoe
from benchmarks.architectures import parse_options, run
from benchmarks.comparison import progress
from benchmarks.comparison.logs import BEST, FOLDERS, NAMES, _cut, find_log
from benchmarks.comparison.measures import Measured, chief_metrics, measure, simple_predictions
from benchmarks.comparison.page import Compared, short_table, word_lines
from benchmarks.comparison.plot import _front
from benchmarks.comparison.rows import rows_of
from benchmarks.comparison.sizes import active_parameters
from benchmarks.comparison.trainings import Result, chosen
from benchmarks.comparison.variants import ONLY_ON, VARIANTS, trial_config, trial_name
from recmoe.architectures import ArchitectureConfig
from recmoe.data.loader import BatchLoader
from recmoe.data.synthetic import write_synthetic
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError, DataError
from recmoe.evaluation.predict import predict_rows
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import build_model
from recmoe.moe.balance import balance_terms
from recmoe.moe.gates import GateConfig

NUM_RESAMPLES = 100
TINY = ("--data", "synthetic", "--rows", "1000", "--kinds", "shared_bottom,omoe", "--trials", "2", "--resamples", "20",
        "--override", "training.epochs=1", "--override", "training.batch_size=128")  # fmt: skip


def log_config(name: str) -> ExperimentConfig:
    folder = Path(recmoe.__file__).parent / "data"
    return load_experiment(folder / ("synthetic.yaml" if name == "synthetic" else f"datasets/{name}.yaml"))


def result_of(value: float, noise: float = 0.0, *, seed: int = 0, score: float = 0.0, trial: int = 0) -> Result:
    """Of a model that every resample, whose rows are easier or harder for all, finds equally far from the others."""
    rows_R = np.random.default_rng(0).normal(0.0, 0.1, NUM_RESAMPLES)
    own_R = np.random.default_rng(seed + 1).normal(0.0, noise, NUM_RESAMPLES) if noise else 0.0
    metrics = {name: Measured(value, tuple(value + rows_R + own_R)) for name in ("ctr.auc[all]", "watch.rmse[click]")}
    return Result("any", trial, seed, score, metrics)


def test_every_kind_of_architecture_and_of_gate_is_compared() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(ArchitectureConfig)[0])}
    gates = {kind.model_fields["kind"].default for kind in get_args(get_args(GateConfig)[0])}

    assert kinds <= set(VARIANTS)
    assert {f"mmoe:gate={kind}" for kind in gates - {"softmax"}} <= set(VARIANTS)


@pytest.mark.parametrize("log", NAMES)
def test_every_variant_fits_every_log_or_is_made_for_others(log: str) -> None:
    base = log_config(log)

    for variant in VARIANTS.values():
        if log in ONLY_ON.get(variant.kind, (log,)):
            assert trial_config(log, base, variant, 0, seed=1).model.architecture.kind == variant.kind
        else:
            with pytest.raises(ConfigError, match="made for steps that follow each other, as in synthetic and hills"):
                trial_config(log, base, variant, 0, seed=1)


def test_null_experts_are_compared_with_what_moves_their_logits() -> None:
    made = trial_config("census", log_config("census"), VARIANTS["mmoe:gate=null_experts"], 0, seed=1)

    [term] = balance_terms(made.model.balance).values()
    assert "nulls" in term.reads


def test_trial_changes_learning_rates_and_dropout_of_the_logs_own_setting() -> None:
    base = log_config("census")

    made = trial_config("census", base, VARIANTS["shared_bottom:wide"], 1, seed=7, overrides=["training.epochs=1"])

    assert (made.seed, made.training.epochs, made.training.batch_size) == (7, 1, base.training.batch_size)
    assert made.model.architecture.model_dump() == {
        "kind": "shared_bottom",
        "hidden": (256, 128),
        "dropout": pytest.approx(0.3),
    }
    assert made.tables.optimizer.lr == pytest.approx(0.3 * base.tables.optimizer.lr)
    assert made.training.dense_optimizer.lr == base.training.dense_optimizer.lr
    assert [trial_name(trial) for trial in (0, 1, 3)] == [
        "as the log's config",
        "tables × 0.3, dropout + 0.2",
        "tables × 0.3, rest × 3",
    ]


def test_trial_with_the_best_validation_is_chosen_whatever_the_test_split_says() -> None:
    trials = [
        result_of(0.9, trial=0, score=0.1),
        result_of(0.5, trial=1, score=0.3),
        result_of(0.6, trial=2, score=0.3),
    ]

    assert chosen(trials).trial == 1


def test_difference_is_told_in_words_for_metrics_that_are_high_and_low() -> None:
    results = {
        "shared_bottom": [result_of(0.7)],
        "mmoe": [result_of(0.71)],
        "ple": [result_of(0.7001, noise=0.01)],
        "omoe": [result_of(0.69, noise=0.001)],
    }

    rows = rows_of(results, known={BEST: {"ctr.auc[all]": 0.8}}, metrics=("ctr.auc[all]", "watch.rmse[click]"))
    compared = Compared("log", ("ctr.auc[all]", "watch.rmse[click]"), rows)

    words = {
        row.name: [cell.against["shared_bottom"].word for cell in row.cells.values() if cell.against] for row in rows
    }
    assert words == {
        BEST: [],
        "shared_bottom": [],
        "mmoe": ["better", "worse"],
        "ple": ["no difference", "no difference"],
        "omoe": ["worse", "better"],
    }
    # The rows alone, which are the same for both, move each by .2 and more.
    low, high = rows[2].cells["ctr.auc[all]"].estimate.low, rows[2].cells["ctr.auc[all]"].estimate.high
    assert low is not None
    assert high is not None
    assert high - low > 0.2
    assert next(iter(word_lines([compared]))) == (
        "- **`mmoe`**, beside `shared_bottom`: better in log `ctr.auc[all]`; worse in log `watch.rmse[click]`."
    )
    assert "| `mmoe` | 0.7100 better |" in short_table([compared])


def test_seeds_that_differ_more_than_the_models_make_no_difference() -> None:
    results = {
        "shared_bottom": [result_of(0.70, seed=0), result_of(0.72, seed=1), result_of(0.74, seed=2)],
        "mmoe": [result_of(0.71, seed=0), result_of(0.73, seed=1), result_of(0.75, seed=2)],
    }

    cell = rows_of(results, known={}, metrics=("ctr.auc[all]",))[1].cells["ctr.auc[all]"]

    assert cell.estimate.value == pytest.approx(0.73)
    assert cell.spread == pytest.approx(0.02)
    assert cell.against["shared_bottom"].advantage.value == pytest.approx(0.01)
    assert cell.against["shared_bottom"].word == "no difference"


def test_metric_that_is_not_defined_has_no_word() -> None:
    nothing = Result("mmoe", 0, 0, 0.0, {"ctr.auc[all]": Measured(None, (float("nan"),) * NUM_RESAMPLES)})

    rows = rows_of({"shared_bottom": [result_of(0.7)], "mmoe": [nothing]}, known={}, metrics=("ctr.auc[all]",))

    assert [row.cells["ctr.auc[all]"].estimate.value for row in rows] == [0.7, None]
    assert not any(row.cells["ctr.auc[all]"].against for row in rows)


def test_front_is_what_nothing_cheaper_reaches() -> None:
    points = {"a": (1.0, 0.7), "b": (2.0, 0.6), "c": (3.0, 0.8), "d": (3.0, 0.75)}

    assert _front(points, is_highest_best=True) == {"a", "c"}
    assert _front(points, is_highest_best=False) == {"a", "b"}


@pytest.mark.parametrize(("gate", "num_used"), [({"kind": "softmax"}, 6), ({"kind": "top_k", "k": 1}, 1)])
def test_active_parameters_leave_out_experts_that_a_row_does_not_use(
    shop_encoder: FeatureEncoder,
    shop_log: pa.Table,
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path: Path,
    gate: dict[str, Any],
    num_used: int,
) -> None:
    config = make_experiment(
        tmp_path, f"model.architecture={{kind: omoe, num_experts: 6, expert_hidden: [16], gate: {json.dumps(gate)}}}"
    )
    torch.manual_seed(0)
    ranker = build_model(
        layout=shop_encoder.layout,
        tasks=config.task_set(),
        config=config.model,
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
    experts = [weight for name, weight in ranker.model.named_parameters() if "experts" in name]

    # A number that is missing, or no more than the least, is a vector of zeros, whose map changes nothing.
    rows = shop_log.filter(pc.greater(shop_log["age"], pc.min(shop_log["age"])))

    active = active_parameters(ranker, shop_encoder, rows.slice(0, 5))

    num_all = sum(weight.numel() for weight in experts)
    num_without = sum(p.numel() for name, p in ranker.named_parameters() if "tables" not in name) - num_all
    gate_weights = sum(p.numel() for name, p in ranker.model.named_parameters() if "gates" in name)
    expected = num_without + num_used / 6 * num_all
    # With one expert its share is 1, whatever the gate's logits are: they change nothing.
    assert active == expected - (gate_weights if num_used == 1 else 0)


@pytest.mark.filterwarnings("ignore:.*eval_set")
def test_simple_models_are_measured_on_the_rows_of_a_model(
    make_experiment: Callable[..., ExperimentConfig], shop_encoder: FeatureEncoder, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "evaluation.baselines=[logistic_regression]")
    model = build_model(
        layout=shop_encoder.layout, tasks=config.task_set(), config=config.model, tables=PlainTables
    ).eval()
    stream = config.data.build("test", seed=0, cache_dir=tmp_path)
    ours = predict_rows(model, BatchLoader(stream, shop_encoder, batch_size=50)).predictions

    theirs = simple_predictions(config, tmp_path / "scratch")["logistic_regression"]

    assert np.array_equal(theirs.labels_NT, ours.labels_NT)
    assert np.array_equal(theirs.weights_NT, ours.weights_NT)
    assert ours.groups_N is not None
    assert theirs.groups_N is not None
    assert np.array_equal(theirs.groups_N, ours.groups_N)
    names = chief_metrics(config)
    measured = measure(theirs, names, config=config.evaluation, num_resamples=10)
    assert list(measured) == list(names)
    assert all(len(one.values_R) == 10 for one in measured.values())


def test_log_that_is_cut_keeps_its_last_rows_and_loses_what_was_known_of_the_others(tmp_path: Path) -> None:
    write_synthetic(tmp_path, num_rows=1000)
    before = pq.read_table(tmp_path / "train.parquet")

    _cut(tmp_path, 500)

    assert pq.read_table(tmp_path / "train.parquet").equals(before.slice(400))
    assert pq.read_table(tmp_path / "test.parquet").num_rows == 50
    assert not (tmp_path / "truth.json").exists()


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_public_log_needs_its_published_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECMOE_DATA", raising=False)

    with pytest.raises(DataError, match=f"{name} needs the published files: set RECMOE_DATA to the folder that holds"):
        find_log(name, tmp_path)


def test_log_that_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log is called shop; there are synthetic, census, hillstrom, trivago"):
        find_log("shop", tmp_path)
    with pytest.raises(DataError, match="at most 1,000,000 rows; give --rows no more, got 2,000,000"):
        find_log("synthetic", tmp_path, rows=2_000_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "mmoe,dlrm"], "--kinds: there is no 'dlrm'; choose from single_task, shared_bottom"),
        (["--trials", "9"], "--trials must be from 1 to 8, got 9"),
        (["--processes", "0"], "--processes must be at least 1, got 0"),
    ],
)
def test_wrong_option_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(arguments)


def test_rows_are_those_of_every_log_or_of_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(["--rows", "500"]).rows == dict.fromkeys(NAMES, 500)
    assert parse_options(["--rows", "census=500,trivago=20"]).rows == {"census": 500, "trivago": 20}
    with pytest.raises(SystemExit):
        parse_options(["--rows", "shop=500"])
    assert "argument --rows: there is no log 'shop'; choose from synthetic, census" in capsys.readouterr().err


@pytest.mark.slow
def test_comparison_is_written_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*TINY, "--to", str(tmp_path), "--page", str(tmp_path / "page")]

    assert run(parse_options([*arguments, "--seeds", "0", "--minutes", "0"])) == 1
    nothing_yet = (tmp_path / "page" / "RESULTS.md").read_text()
    assert run(parse_options([*arguments, "--seeds", "0"])) == 0
    first = capsys.readouterr().out
    kept = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert run(parse_options([*arguments, "--seeds", "0,5"])) == 0
    second = capsys.readouterr().out
    monkeypatch.setattr(progress, "train", lambda *_: pytest.fail("a training that is done was done again"))
    assert run(parse_options([*arguments, "--seeds", "0,5"])) == 0

    assert "Not complete: 4 trainings are left." in nothing_yet
    assert [line.split(":")[0] for line in first.splitlines() if "score" in line] == [
        "synthetic shared_bottom, seed 0, trial 1",
        "synthetic shared_bottom, seed 0, trial 2",
        "synthetic omoe, seed 0, trial 1",
        "synthetic omoe, seed 0, trial 2",
    ]
    assert second.count("seed 5") == second.count("score") == 2
    assert "0 trainings left, about 0 min" in second
    assert len(kept) == 4 + 2
    assert kept.items() <= {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}.items()
    assert not list((tmp_path / "runs").iterdir())
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    truth = json.loads((tmp_path / "logs" / "synthetic-1000" / "truth.json").read_text())
    assert f"| best reachable | {truth['ctcvr.auc[all]']:.4f} |" in page
    for name in ("`shared_bottom`", "`omoe`", "logistic regression"):
        assert page.count(f"| {name} |") >= 4
    assert "- **`omoe`**, beside `shared_bottom`: " in page
    assert re.search(r"^\| `omoe` \| .* \| [\d,]+ \|$", page, flags=re.MULTILINE), "samples/s"
    assert "Not complete" not in page
    assert (tmp_path / "page" / "architectures.png").stat().st_size < 200_000
    assert "| `omoe` |" in (tmp_path / "short.md").read_text()


@pytest.mark.slow
def test_training_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    arguments = [*TINY, "--to", str(tmp_path), "--seeds", "0", "--trials", "1"]

    status = run(parse_options([*arguments, "--override", "training.device=cuda"]))

    assert status == 1
    assert "`omoe` is left out: a training failed: " in (tmp_path / "RESULTS.md").read_text()
    assert not list((tmp_path / "results").glob("*omoe*"))


@pytest.mark.slow
def test_processes_of_a_pool_train_what_one_process_does(tmp_path: Path) -> None:
    arguments = [*TINY, "--seeds", "0", "--trials", "1"]

    statuses = [
        run(parse_options([*arguments, "--to", str(tmp_path / str(number)), "--processes", str(number)]))
        for number in (1, 2)
    ]

    assert statuses == [0, 0]
    scores = [
        {path.name: json.loads(path.read_text())["score"] for path in sorted((tmp_path / number / "results").iterdir())}
        for number in ("1", "2")
    ]
    assert scores[0].keys() == scores[1].keys()
    assert {name: score and pytest.approx(score, abs=1e-4) for name, score in scores[0].items()} == scores[1]
