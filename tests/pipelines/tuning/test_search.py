"""How trials are drawn, judged and described, without Ray's processes."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.tuning.best import best_yaml
from pipelines.tuning.dimension import Choices, Range
from pipelines.tuning.folder import TrialRecord
from pipelines.tuning.importance import importances
from pipelines.tuning.page import write_tune_page
from pipelines.tuning.progress import TuneProgress
from pipelines.tuning.score import Score
from pipelines.tuning.search import Halving, RunningTrial, StudySearch, study_of
from pipelines.tuning.space import Space
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig, load_experiment

LR = "tables.optimizer.lr"
BATCH = "training.batch_size"
SCORE = Score("ctr.auc[all]", is_higher_better=True)


@pytest.fixture
def space() -> Space:
    return Space({LR: Range(low=1e-6, high=1.0, log=True), BATCH: Choices(choices=[16, 32, 64])})


class Log:
    """Keeps what a search tells."""

    def __init__(self) -> None:
        self.started: list[RunningTrial] = []
        self.steps: list[int] = []
        self.records: list[TrialRecord] = []

    def start(self, trial: RunningTrial) -> None:
        self.started.append(trial)

    def report(self, trial: RunningTrial, step: int, values: Mapping[str, float]) -> None:
        del trial, values
        self.steps.append(step)

    def end(self, trial: RunningTrial, is_error: bool) -> TrialRecord:
        self.records.append(trial.record("failed" if is_error else "finished"))
        return self.records[-1]


def search(base: ExperimentConfig, space: Space, log: Log, *records: TrialRecord) -> StudySearch:
    return StudySearch(
        base, space, records, settings={"root": "here"}, started=log.start, reported=log.report, ended=log.end
    )


def report(validation: int, score: float) -> dict[str, object]:
    values = json.dumps({"val/ctr.auc[all]": score})
    return {"validation": validation, "step": validation * 10, "score": score, "values": values}


def record(number: int, lr: float, score: float | None, *, curve: tuple[float, ...] = ()) -> TrialRecord:
    status = "finished" if score is not None else "failed"
    return TrialRecord(number, {LR: lr, BATCH: 32}, status, score, list(curve), {"ctr.auc[all]": score or 0.0})


def test_first_trial_is_the_config_as_it_stands(base: ExperimentConfig, space: Space) -> None:
    log = Log()

    settings = search(base, space, log).suggest("a")

    assert (settings["root"], settings["number"]) == ("here", 0)
    assert json.loads(settings["values"]) == {LR: 1e-5, BATCH: 32}


def test_config_outside_the_space_is_the_first_trial_all_the_same(base: ExperimentConfig) -> None:
    outside = Space({LR: Range(low=0.01, high=0.1)})
    trials = search(base, outside, Log())

    first, second = (json.loads(trials.suggest(name)["values"])[LR] for name in "ab")
    trials.on_trial_complete("a", report(1, 0.6))

    assert first == 1e-5
    assert 0.01 <= second <= 0.1


def test_record_holds_the_best_validation_and_counts_none_twice(base: ExperimentConfig, space: Space) -> None:
    log = Log()
    trials = search(base, space, log)
    trials.suggest("a")

    for validation, score in ((1, 0.6), (2, 0.8), (2, 0.8), (3, 0.7)):
        trials.on_trial_result("a", report(validation, score))
    trials.on_trial_complete("a", report(3, 0.7))

    assert log.steps == [10, 20, 30]
    assert (log.records[0].score, log.records[0].curve) == (0.8, [0.6, 0.8, 0.7])
    assert log.records[0].metrics == {"ctr.auc[all]": 0.8}


def test_trial_without_a_validation_is_no_evidence(base: ExperimentConfig, space: Space) -> None:
    log = Log()
    trials = search(base, space, log)
    trials.suggest("a")

    trials.on_trial_complete("a", error=True)

    assert (log.records[0].status, log.records[0].score) == ("failed", None)


def test_resumed_search_goes_on_counting_and_draws_where_earlier_trials_were_good(
    base: ExperimentConfig, space: Space
) -> None:
    good = [record(number, 0.1 * 1.1**number, 0.9) for number in range(10)]
    bad = [record(10 + number, 1e-5 * 1.1**number, 0.5) for number in range(20)]
    trials = search(base, space, Log(), *good, *bad)

    settings = [trials.suggest(str(trial)) for trial in range(8)]

    rates = [json.loads(one["values"])[LR] for one in settings]
    assert [one["number"] for one in settings] == list(range(30, 38))
    assert sum(rate > 0.003 for rate in rates) > 5


def test_study_leaves_out_what_the_space_cannot_draw(base: ExperimentConfig, space: Space) -> None:
    records = [record(0, 5.0, 0.9), record(1, 0.1, 0.8), record(2, 0.2, None)]

    study = study_of(records, base, space)

    assert [trial.params[LR] for trial in study.trials] == [0.1, 0.2]
    assert study.best_value == 0.8


def test_trial_below_the_marks_of_earlier_trials_is_stopped_but_not_the_first(base: ExperimentConfig) -> None:
    del base
    records = [record(number, 0.1, 0.9, curve=(0.8 + number / 100, 0.9)) for number in range(1, 6)]
    halving = Halving(3, records)
    poor, good, first = (
        SimpleNamespace(trial_id=name, config={"number": number}) for name, number in (("p", 7), ("g", 8), ("f", 0))
    )

    decisions = []
    for trial, score in ((poor, 0.5), (good, 0.95), (first, 0.5)):
        halving.on_trial_add(None, trial)
        decisions.append(halving.on_trial_result(None, trial, {"validation": 1, "best": score}))

    assert decisions == ["STOP", "CONTINUE", "CONTINUE"]


def test_key_that_decides_matters_most(base: ExperimentConfig, space: Space) -> None:
    records = [
        TrialRecord(n, {LR: 10.0 ** -(n % 6), BATCH: [16, 32, 64][n % 3]}, "finished", -float(n % 6)) for n in range(30)
    ]

    shares = importances(records, base, space)

    assert next(iter(shares)) == LR
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(records[:9], base, space) == {}


def test_page_shows_best_trials_their_changes_and_failures(
    base: ExperimentConfig, space: Space, tmp_path: Path
) -> None:
    records = [record(0, 1e-5, 0.5, curve=(0.5,)), record(1, 0.25, 0.75, curve=(0.6, 0.75)), record(2, 0.1, None)]
    records[2] = TrialRecord(2, {LR: 0.1, BATCH: 32}, "failed", None, error="step 3: the loss of <ctr> is not finite")

    write_tune_page(records, space, base, SCORE, tmp_path / "tune.html")

    page = (tmp_path / "tune.html").read_text()
    assert "0.7500" in page
    assert "optimizer.lr = 0.25" not in page, "the shortest name that tells keys apart"
    assert "lr = 0.25" in page
    assert "the loss of &lt;ctr&gt; is not finite" in page
    assert "at least 10 trials with different scores are needed" in page
    assert page.count("data:image/svg+xml") == 3


def test_best_config_extends_the_original_and_loads(shelf: Path, base: ExperimentConfig, tmp_path: Path) -> None:
    values = {"model.architecture.kind": "ple", "model.architecture.expert_hidden": [4], "name": "a ${HOME} of ids"}

    text = best_yaml(
        shelf, tmp_path / "best.yaml", overrides=["training.epochs=7"], values=values, comments=["Best: 0.7"]
    )

    (tmp_path / "best.yaml").write_text(text)
    best = load_experiment(tmp_path / "best.yaml")
    assert text.startswith("# Best: 0.7\nextends: ")
    assert (best.training.epochs, best.name, best.data) == (7, "a ${HOME} of ids", base.data)
    assert best.model.architecture.model_dump(include={"kind", "expert_hidden"}) == {
        "kind": "ple",
        "expert_hidden": (4,),
    }


def test_metric_that_is_best_low_is_turned(shelf: Path) -> None:
    config = load_experiment(shelf, ["training.early_stopping.metric=ctr.logloss[all]"])

    score = Score.of(config)

    assert score.read({"val/ctr.logloss[all]": 0.4}) == -0.4
    assert score.read({"train/ctr/loss": 0.4}) is None
    assert score.read({"val/ctr.logloss[all]": float("nan")}) is None
    assert score.shown(-0.4) == 0.4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.early_stopping=null"], r"shelf: tuning compares by what early stopping watches, .*give --metric"),
        (["training.early_stopping=null", "data.validation=[]"], r"shelf: tuning compares on data\.validation"),
    ],
)
def test_config_that_cannot_be_compared_is_refused(shelf: Path, overrides: list[str], message: str) -> None:
    config = load_experiment(shelf, overrides)

    with pytest.raises(ConfigError, match=message):
        Score.of(config)


def test_progress_says_what_was_different_and_what_failed(base: ExperimentConfig, space: Space) -> None:
    stream = io.StringIO()
    progress = TuneProgress(3, 1, SCORE, space, stream=stream)
    best = record(1, 0.25, 0.75, curve=(0.6, 0.75))

    progress.ended(best, best, space.changes(base, best.values))
    progress.ended(TrialRecord(2, {}, "failed", None, error="no memory"), best, {})
    progress.close()

    assert stream.getvalue().splitlines() == [
        "2/3 · trial 1 · ctr.auc[all] 0.7500 (best so far) · 2 validations · 0 s · lr=0.25",
        "3/3 · trial 2 failed: no memory · the config as it stands",
    ]
