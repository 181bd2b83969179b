from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, field_validator

from recmoe.config import Config, config_from_dict, dump_config, load_config
from recmoe.errors import ConfigError


class SoftmaxConfig(Config):
    kind: Literal["softmax"] = "softmax"


class TopKConfig(Config):
    kind: Literal["top_k"] = "top_k"
    k: PositiveInt = 2
    top_k: PositiveInt = 1


class ModelConfig(Config):
    gate: Annotated[SoftmaxConfig | TopKConfig, Field(discriminator="kind")] = SoftmaxConfig()
    experts: PositiveInt | dict[str, PositiveInt] = 1
    hidden: tuple[PositiveInt, ...] = (8,)

    def problems(self) -> Iterator[tuple[str, str]]:
        if len(self.hidden) > 2:
            yield "hidden", "more layers than two"


class TaskConfig(Config):
    label: str
    weight: float = 1.0

    @field_validator("label")
    @classmethod
    def no_blank(cls, label: str) -> str:
        if " " in label:
            raise ValueError("a label has no blanks")
        return label


class RunConfig(Config):
    name: str
    steps: PositiveInt = 10
    rate: float | None = None
    model: ModelConfig = ModelConfig()
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.steps > 100:
            yield "steps", "more steps than 100"
        if "none" in self.tasks:
            yield "", "none is no name of a task"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, path, overrides)
    return str(caught.value)


def test_values_come_from_the_file_and_defaults() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  gate: {kind: top_k, k: 3}\n")

    config = load_config(RunConfig, path)

    assert config == RunConfig(name="a", model=ModelConfig(gate=TopKConfig(k=3)))


def test_numbers_and_words_follow_yaml_1_2() -> None:
    path = write("run.yaml", "name: no\nrate: 1e-3\nsteps: 1_000\ntasks: {2024-01-01: {label: 'on'}}\n")

    config = RunConfig.model_validate(load_config(RunConfig, path, ["steps=50"]))

    assert (config.name, config.rate, config.steps, list(config.tasks)) == ("no", 0.001, 50, ["2024-01-01"])


def test_unknown_key_names_file_line_and_the_key_meant() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  gate:\n    kind: top_k\n    kk: 1\n")

    assert message(path) == "run.yaml:5  model.gate.kk: unknown key, did you mean k?"


def test_unknown_key_like_no_other_lists_what_is_known() -> None:
    path = write("run.yaml", "name: a\ntasks:\n  ctr: {label: click, zzz: 1}\n")

    assert message(path) == "run.yaml:3  tasks.ctr.zzz: unknown key, known here: label, weight"


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    path = write(
        "run.yaml", "steps: ten\nstepz: 1\nmodel:\n  gate: {kind: top_k, k: 0}\n  hidden: [8, 0]\ntasks:\n  ctr: {}\n"
    )

    assert message(path, "rate=fast") == (
        "run.yaml: 7 errors\n"
        "  run.yaml:1  name: field required\n"
        "  run.yaml:1  steps: input should be a valid integer, unable to parse string as an integer\n"
        "  run.yaml:2  stepz: unknown key, did you mean steps?\n"
        "  run.yaml:4  model.gate.k: input should be greater than 0\n"
        "  run.yaml:5  model.hidden.1: input should be greater than 0\n"
        "  run.yaml:7  tasks.ctr.label: field required\n"
        "  command line  rate: input should be a valid number, unable to parse string as a number"
    )


def test_unknown_kind_is_reported_with_the_known_ones() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  gate:\n    kind: topk\n")

    assert message(path) == (
        "run.yaml:4  model.gate.kind: input tag 'topk' found using 'kind' does not match any of the expected tags: "
        "'softmax', 'top_k', did you mean 'top_k'?"
    )


def test_section_without_its_kind_is_told_the_kinds() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  gate: {k: 3}\n")

    assert message(path) == "run.yaml:3  model.gate.kind: field required, one of 'softmax', 'top_k'"


def test_a_field_named_like_the_kind_is_still_found() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  gate:\n    kind: top_k\n    top_k: 0\n")

    assert message(path) == "run.yaml:5  model.gate.top_k: input should be greater than 0"


def test_a_value_of_neither_type_of_a_union_is_one_error() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  experts: [1]\n")

    assert message(path) == (
        "run.yaml:3  model.experts: input should be a valid integer; or expected a section of keys, got [1]"
    )


def test_a_wrong_value_of_one_type_of_a_union_hides_the_other_types() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  experts: 0\n")

    assert message(path) == "run.yaml:3  model.experts: input should be greater than 0"


def test_an_error_inside_one_type_of_a_union_hides_the_other_types() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  experts:\n    ctr: 0\n")

    assert message(path) == "run.yaml:4  model.experts.ctr: input should be greater than 0"


def test_scalar_in_place_of_a_section_is_shown() -> None:
    path = write("run.yaml", "name: a\nmodel: ple\n")

    assert message(path) == "run.yaml:2  model: expected a section of keys, got 'ple'"


def test_message_of_a_validator_is_passed_on() -> None:
    path = write("run.yaml", "name: a\ntasks:\n  ctr:\n    label: a b\n")

    assert message(path) == "run.yaml:4  tasks.ctr.label: a label has no blanks"


def test_key_given_twice_is_an_error() -> None:
    path = write("run.yaml", "name: a\nsteps: 1\nsteps: 2\n")

    assert message(path) == "run.yaml:3  steps: key given twice"


def test_extended_files_are_merged_and_the_later_one_wins() -> None:
    write("base/first.yaml", "name: a\nsteps: 1\nmodel: {hidden: [1, 2], experts: 5}\n")
    write("base/second.yaml", "extends: first.yaml\nsteps: 2\nrate: 1\n")
    path = write("run.yaml", "extends: [base/second.yaml]\nrate: 2\nmodel: {hidden: [3]}\n")

    config = load_config(RunConfig, path)

    assert config == RunConfig(name="a", steps=2, rate=2, model=ModelConfig(hidden=(3,), experts=5))


def test_errors_name_the_extended_file_in_which_they_are() -> None:
    write("base.yaml", "steps: 0\nrate: x\n")
    path = write("run.yaml", "extends: base.yaml\nname: a\nrate: 1\n")

    assert message(path) == "base.yaml:1  steps: input should be greater than 0"


def test_changing_kind_drops_the_old_fields() -> None:
    write("base.yaml", "name: a\nmodel: {experts: 4, gate: {kind: top_k, k: 3}}\n")
    path = write("run.yaml", "extends: base.yaml\nmodel: {gate: {kind: softmax}}\n")

    config = load_config(RunConfig, path)

    assert config.model == ModelConfig(experts=4, gate=SoftmaxConfig())


def test_naming_the_same_kind_keeps_the_fields() -> None:
    path = write("run.yaml", "name: a\nmodel: {gate: {kind: top_k, k: 3}}\n")

    config = load_config(RunConfig, path, ["model.gate.kind=top_k"])

    assert config.model.gate == TopKConfig(k=3)


def test_overrides_change_kind_and_fields_in_any_order() -> None:
    path = write("run.yaml", "name: a\nmodel: {gate: {kind: softmax}}\n")

    config = load_config(RunConfig, path, ["model.gate.k=5", "model.gate.kind=top_k"])

    assert config.model.gate == TopKConfig(k=5)


def test_override_values_are_yaml_and_the_later_one_wins() -> None:
    path = write("run.yaml", "name: a\n")

    config = load_config(RunConfig, path, ["model.hidden=[4, 2]", "rate=1", "rate=null", "tasks.ctr={label: click}"])

    assert config == RunConfig(name="a", model=ModelConfig(hidden=(4, 2)), tasks={"ctr": TaskConfig(label="click")})


def test_override_error_says_command_line() -> None:
    path = write("run.yaml", "name: a\nmodel: {gate: {kind: softmax}}\n")

    assert message(path, "model.gate.kindd=x") == "command line  model.gate.kindd: unknown key, did you mean kind?"


@pytest.mark.parametrize("override", ["steps", "=3", "model..hidden=3"])
def test_override_of_another_form_is_an_error(override: str) -> None:
    path = write("run.yaml", "name: a\n")

    assert message(path, override) == f"command line  {override!r} is not of the form key.path=value"


def test_override_that_is_not_yaml_is_an_error() -> None:
    path = write("run.yaml", "name: a\n")

    assert message(path, "steps=[1").startswith("command line  steps: not valid YAML: ")


def test_environment_variables_and_here_are_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEPS", "7")
    monkeypatch.delenv("ABSENT", raising=False)
    write("base/base.yaml", "name: ${here}/${ABSENT:-x}\nsteps: ${STEPS}\n")
    path = write("run.yaml", "extends: base/base.yaml\ntasks: {a: {label: '$${STEPS}'}}\n")

    config = load_config(RunConfig, path)

    assert (config.name, config.steps) == (f"{tmp_path}/base/x", 7)
    assert config.tasks["a"].label == "${STEPS}"


def test_unset_environment_variable_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    path = write("run.yaml", "name: a\nsteps: ${ABSENT}\n")

    assert message(path) == "run.yaml:2  steps: environment variable ABSENT is not set"


def test_unset_environment_variable_does_not_matter_when_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    path = write("run.yaml", "name: a\nsteps: ${ABSENT}\n")

    config = load_config(RunConfig, path, ["steps=4"])

    assert config.steps == 4


def test_problems_of_sections_point_at_their_lines() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  hidden: [1, 2, 3]\n")

    assert message(path) == "run.yaml:3  model.hidden: more layers than two"


def test_problems_of_a_section_wait_for_those_inside_it() -> None:
    path = write("run.yaml", "name: a\nsteps: 101\nmodel:\n  hidden: [1, 2, 3]\n")

    assert message(path) == "run.yaml:4  model.hidden: more layers than two"


def test_problems_wait_until_every_value_is_valid() -> None:
    path = write("run.yaml", "name: a\nmodel:\n  hidden: [1, 2, 3]\n  experts: 0\n")

    assert message(path) == "run.yaml:4  model.experts: input should be greater than 0"


def test_problem_without_a_path_points_at_its_section() -> None:
    path = write("run.yaml", "name: a\ntasks: {none: {label: x}}\n")

    assert message(path, "steps=101") == (
        "run.yaml: 2 errors\n  run.yaml:1  none is no name of a task\n  command line  steps: more steps than 100"
    )


def test_missing_file_suggests_one_that_is_there() -> None:
    write("mmoe.yaml", "name: a\n")

    assert message(Path("mmo.yaml")) == "mmo.yaml  no such file, did you mean mmoe.yaml?"


def test_missing_extended_file_points_at_the_line() -> None:
    path = write("run.yaml", "name: a\nextends:\n  - bsae/run.yaml\n")

    assert message(path) == "run.yaml:2  extends: no such file bsae/run.yaml"


def test_extends_of_another_type_is_an_error() -> None:
    path = write("run.yaml", "extends: {a: b}\n")

    assert message(path) == "run.yaml:1  extends: give a file name or a list of file names"


def test_files_that_extend_each_other_are_an_error() -> None:
    write("base.yaml", "extends: run.yaml\n")
    path = write("run.yaml", "name: a\nextends: base.yaml\n")

    assert message(path) == "base.yaml:1  extends: files extend each other: run.yaml → base.yaml → run.yaml"


def test_folder_in_place_of_a_file_is_an_error() -> None:
    Path("runs").mkdir()

    assert message(Path("runs")) == "runs  cannot read runs: Is a directory"


def test_file_that_is_not_text_is_an_error() -> None:
    Path("run.yaml").write_bytes(b"name: \xff\n")

    assert message(Path("run.yaml")) == "run.yaml  cannot read run.yaml: it is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "run.yaml:1  the file is empty"),
        ("- a\n", "run.yaml:1  a config is a mapping of sections, such as 'training:'"),
        ("name: a\nmodel: [1\n", "run.yaml:3  not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("name: a\n\tsteps: 1\n", "run.yaml:2  not valid YAML: "),
        ('name: a\ntasks: {a: {label: "\\ud83d"}}\n', "run.yaml:2  not valid YAML: half a character in '\\ud83d'"),
        ("name: !point a\n", "run.yaml:1  name: could not determine a constructor for the tag '!point'"),
        ("name: a\n? [1]\n: 2\n", "run.yaml:2  a key must be plain text"),
        ("name: a\ntasks: &t {x: *t}\n", "run.yaml:2  tasks.x: an alias may not contain itself"),
        ("name: a\n<<: 3\n", "run.yaml:2  << takes a mapping"),
    ],
)
def test_text_that_is_no_config_is_an_error(text: str, expected: str) -> None:
    path = write("run.yaml", text)

    assert message(path).startswith(expected)


def test_character_in_two_halves_is_one() -> None:
    path = write("run.yaml", 'name: "\\ud83d\\ude42 点"\ntasks: {"\\ud83d\\ude42": {label: "\\U0001F642"}}\n')

    config = load_config(RunConfig, path)

    assert (config.name, config.tasks["🙂"].label) == ("🙂 点", "🙂")


def test_merged_anchors_give_way_to_keys_beside_them() -> None:
    path = write(
        "run.yaml", "name: a\ntasks:\n  a: &common {label: x, weight: 2}\n  b:\n    <<: *common\n    label: y\n"
    )

    config = load_config(RunConfig, path)

    assert config.tasks["b"] == TaskConfig(label="y", weight=2)


def test_dumped_config_loads_again_as_the_same() -> None:
    config = RunConfig(
        name="a", model=ModelConfig(gate=TopKConfig(k=3), hidden=(1, 2)), tasks={"c": TaskConfig(label="x")}
    )

    values = dump_config(config)

    assert values["model"]["gate"] == {"kind": "top_k", "k": 3, "top_k": 1}
    assert config_from_dict(RunConfig, values) == config


def test_config_from_values_names_its_source() -> None:
    with pytest.raises(ConfigError, match=r"^bundle/config\.json  stepz: unknown key, did you mean steps\?$"):
        config_from_dict(RunConfig, {"name": "a", "stepz": 3}, source="bundle/config.json")


def test_config_from_values_takes_overrides() -> None:
    config = config_from_dict(RunConfig, {"name": "a", "model": {"experts": 3}}, overrides=["model.experts=4"])

    assert config.model.experts == 4


def test_config_cannot_be_changed() -> None:
    config = RunConfig(name="a")

    with pytest.raises(ValueError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


def test_config_from_values_takes_changes_by_key_path_in_their_order() -> None:
    changes = {"model.gate.kind": "softmax", "model.gate": {"kind": "top_k", "k": 2}, "model.gate.k": 3}

    config = config_from_dict(RunConfig, {"name": "a"}, changes=changes)

    assert config.model.gate == TopKConfig(k=3)


def test_wrong_change_names_where_it_comes_from() -> None:
    with pytest.raises(ConfigError, match=r"^space\.yaml:3  model\.gate\.k: "):
        config_from_dict(
            RunConfig, {"name": "a"}, changes={"model.gate": {"kind": "top_k", "k": 0}}, changes_from="space.yaml:3"
        )
