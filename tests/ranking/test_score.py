"""Formulas are arithmetic over task names, and nothing else."""

import numpy as np
import pytest

from recmoe.errors import ConfigError, RequestError
from recmoe.ranking.score import RankingConfig, ScoreFormula

PREDICTIONS = {"ctr": np.array([0.5, 0.0, 0.25]), "price": np.array([4.0, 9.0, 1.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ctr * price ** 0.5", [1.0, 0.0, 0.25]),
        ("-ctr + 2 * (price - 1)", [5.5, 16.0, -0.25]),
        ("min(ctr, 0.3) / 2", [0.15, 0.0, 0.125]),
        ("max(ctr, price, 5)", [5.0, 9.0, 5.0]),
        ("exp(log(price))", [4.0, 9.0, 1.0]),
        ("7", [7.0, 7.0, 7.0]),
    ],
)
def test_formula_computes_what_it_says(text: str, expected: list[float]) -> None:
    scores = ScoreFormula.parse(text).evaluate(PREDICTIONS)

    np.testing.assert_allclose(scores, expected)


def test_formula_lists_its_tasks_in_the_order_of_their_mention() -> None:
    formula = ScoreFormula.parse("price * ctr + price")

    assert formula.names == ("price", "ctr")


def test_score_that_is_no_number_is_not_finite() -> None:
    scores = ScoreFormula.parse("1 / ctr").evaluate(PREDICTIONS)

    assert scores.tolist() == [2.0, np.inf, 4.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ctr +", "invalid syntax; write arithmetic over task names"),
        ("__import__('os')", r"__import__\('os'\) is not allowed"),
        ("ctr.real", "ctr.real is not allowed"),
        ("ctr if 1 else 2", "is not allowed"),
        ("ctr[0]", r"ctr\[0\] is not allowed"),
        ("ctr & 1", "ctr & 1 is not allowed"),
        ("(lambda: 1)()", "is not allowed"),
        ("log(ctr, 2)", "log takes one value, got 2"),
        ("max(ctr)", "max takes two values or more, got 1"),
        ("min(ctr, *price)", r"\*price is not allowed"),
        ("True", "True is not a number"),
        ("'ctr'", "'ctr' is not a number"),
        ("2j", "2j is not a number"),
        ("1e999", "a number in it is too large"),
        ("", "invalid syntax"),
        ("-" * 250 + "1", "nested more than 200 deep; simplify it"),
        ("(" * 5000 + "1" + ")" * 5000, "write arithmetic over task names"),
        ("9" * 6000, "write arithmetic over task names"),
    ],
)
def test_formula_refuses_all_but_arithmetic(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoreFormula.parse(text)


def test_names_are_of_any_script_however_their_letters_are_written() -> None:
    formula = ScoreFormula.parse("点击 + 2 * ﬁnish")

    formula.check_tasks(["点击", "ﬁnish"])
    score_N = formula.evaluate({"点击": np.array([0.5]), "ﬁnish": np.array([0.25])})

    assert score_N.tolist() == [1.0]


def test_unknown_task_is_named_with_a_suggestion() -> None:
    formula = ScoreFormula.parse("2 * ctrr")

    with pytest.raises(ConfigError, match=r'formula "2 \* ctrr": unknown task ctrr, did you mean ctr\?'):
        formula.check_tasks(["ctr", "cvr"])


def test_config_finds_every_formula_that_does_not_fit() -> None:
    config = RankingConfig(scores={"profit": "ctr * cvrr", "ctr": "1", "broken": "ctr *"}, default="profits")

    problems = dict([*config.problems(), *config.task_problems(["ctr", "cvr"])])

    assert problems.keys() == {"scores.profit", "scores.ctr", "scores.broken", "default"}
    assert problems["scores.profit"] == 'formula "ctr * cvrr": unknown task cvrr, did you mean cvr?'
    assert problems["scores.ctr"] == "ctr is a task already, which is a score by its own name; choose another"
    assert problems["default"] == "unknown score profits, did you mean profit?"


def test_building_scores_raises_the_first_problem() -> None:
    config = RankingConfig(scores={"profit": "clicks"})

    with pytest.raises(ConfigError, match=r'ranking.scores.profit: formula "clicks": unknown task clicks'):
        config.build(["ctr"])


def test_every_task_is_a_score_by_its_own_name() -> None:
    scores = RankingConfig(scores={"profit": "ctr * 2"}).build(["ctr", "watch-time"])

    name, formula = scores.choose("watch-time")

    assert name == "watch-time"
    assert formula.evaluate({"watch-time": np.array([3.0])}).tolist() == [3.0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RankingConfig(), "ctr"),
        (RankingConfig(scores={"profit": "2 * cvr"}), "profit"),
        (RankingConfig(scores={"profit": "2 * cvr"}, default="cvr"), "cvr"),
    ],
)
def test_default_is_the_named_score_or_the_first(config: RankingConfig, expected: str) -> None:
    scores = config.build(["ctr", "cvr"])

    name, _ = scores.choose(None)

    assert name == expected


def test_asking_for_an_unknown_score_is_a_request_error() -> None:
    scores = RankingConfig(scores={"profit": "ctr * 2"}).build(["ctr"])

    with pytest.raises(RequestError, match=r"score: unknown score profitt, did you mean profit\?"):
        scores.choose("profitt")


def test_name_near_to_none_lists_what_there_is() -> None:
    scores = RankingConfig(scores={"profit": "ctr * 2"}).build(["ctr"])

    with pytest.raises(RequestError, match="score: unknown score zzz, there are profit, ctr"):
        scores.choose("zzz")
