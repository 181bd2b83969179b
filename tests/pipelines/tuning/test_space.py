"""What is searched: from the config, from a file, and checked by the config."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.tuning.dimension import Choices, Range
from pipelines.tuning.space import Space, changed, read_space
from pipelines.tuning.starting_space import starting_space
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig, load_experiment

SpaceFile = Callable[[str], Path]


def test_starting_space_holds_the_config_as_it_stands(base: ExperimentConfig) -> None:
    space = Space(starting_space(base))

    space.check(base)
    own = space.own_values(base)

    assert space.holds(own)
    assert own["training.batch_size"] == 32
    assert changed(base, own) == base


@pytest.mark.parametrize("kind", ["single_task", "shared_bottom", "omoe", "mmoe", "cgc", "ple"])
def test_starting_space_fits_every_architecture(shelf: Path, kind: str) -> None:
    config = load_experiment(shelf, [f"model.architecture={{kind: {kind}}}"])
    space = Space(starting_space(config))

    space.check(config)

    assert space.holds(space.own_values(config))


def test_trial_has_the_keys_of_the_kind_that_it_drew(base: ExperimentConfig) -> None:
    space = Space(starting_space(base))

    values = space.draw(base, lambda key, _, current: "shared_bottom" if key.endswith("kind") else current)

    assert "model.architecture.hidden" in values
    assert "model.architecture.num_experts" not in values


def test_values_equal_to_the_config_are_changes_where_another_kind_would_reset_them(base: ExperimentConfig) -> None:
    space = Space(starting_space(base))
    values = {**space.own_values(base), "model.architecture.kind": "ple"}
    del values["model.architecture.num_experts"]

    changes = space.changes(base, values)

    assert changes == {"model.architecture.kind": "ple", "model.architecture.expert_hidden": [8]}


def test_file_replaces_the_starting_space(base: ExperimentConfig, space_file: SpaceFile) -> None:
    space = read_space(space_file("training.batch_size: {low: 16, high: 64}"), base)

    assert space.dimensions == {"training.batch_size": Range(low=16, high=64)}


def test_file_can_add_to_the_starting_space_and_leave_keys_out(base: ExperimentConfig, space_file: SpaceFile) -> None:
    text = (
        "default: true\nmodel.balance: {choices: [0.0, 0.1]}\ninputs.width: null\ntraining.batch_size: {choices: [8]}"
    )

    space = read_space(space_file(text), base)

    assert space.dimensions["model.balance"] == Choices(choices=[0.0, 0.1])
    assert space.dimensions["training.batch_size"] == Choices(choices=[8])
    assert "inputs.width" not in space.dimensions
    assert "tables.optimizer.lr" in space.dimensions


def test_choice_may_be_a_section(base: ExperimentConfig, space_file: SpaceFile) -> None:
    text = (
        "model.architecture: {choices: [{kind: ple, expert_hidden: [4]}, {kind: single_task}]}\n"
        "model.architecture.num_levels: {low: 1, high: 2}\n"
    )
    space = read_space(space_file(text), base)

    space.check(base)
    values = space.draw(base, lambda _, dimension, __: dimension.probes[0])

    assert changed(base, values).model.architecture.model_dump(include={"kind", "num_levels"}) == {
        "kind": "ple",
        "num_levels": 1,
    }


def test_keys_have_the_shortest_names_that_tell_them_apart() -> None:
    keys = ("training.dense_optimizer.lr", "tables.optimizer.lr", "inputs.width")
    space = Space({key: Range(low=1.0, high=2.0) for key in keys})

    names = space.names()

    assert [names[key] for key in keys] == ["dense_optimizer.lr", "optimizer.lr", "width"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.bach_size: {choices: [1]}", r":1  training\.bach_size: unknown key, did you mean batch_size"),
        ("\ntraining.batch_size: {choices: [8, 0]}", r"yaml:2  training\.batch_size: input should be greater than 0"),
        ("training.batch_size: {low: 0, high: 8, log: true}", r"yaml:1  training\.batch_size  low: 0 has no log"),
        ("training.batch_size: {low: 8, high: 8}", r"training\.batch_size  high: 8 is not above low, 8"),
        ("training.batch_size: {low: 8, hihg: 9}", r"training\.batch_size  hihg: unknown key, did you mean high"),
        ("training.batch_size: {choices: []}", r"training\.batch_size  choices: list should have at least 1 item"),
        ("training.batch_size: {choices: [8, 8]}", r"training\.batch_size  choices: 8 is given twice"),
        ("training.batch_size: 8", r"space\.yaml:1  training\.batch_size: 8 is no range; write it like"),
        ("default: 3", r"space\.yaml:1  default: 3 is neither true nor false"),
        ("default: false", r"space\.yaml  no key is searched; give one, such as"),
        ("model.architecture.kind: {choices: [plee]}", r"model\.architecture\.kind: .*did you mean 'ple'"),
        ("training.batch_size: {low: 1, high: 2}\ntraining.batch_size: null", r"space\.yaml:2 .*key given twice"),
        ("ranking.scores.mine: {choices: [ctr]}", r"ranking\.scores\.mine: the config has no such key; write it"),
    ],
)  # fmt: skip
def test_wrong_space_names_file_line_and_key(
    base: ExperimentConfig, space_file: SpaceFile, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space(space_file(text), base).check(base)


def test_space_file_that_is_not_there_is_an_error(base: ExperimentConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml  no such file"):
        read_space(tmp_path / "missing.yaml", base)
