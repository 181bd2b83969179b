"""ScoreFormula: predictions of tasks → the one number a list is sorted by."""

# N rows, T tasks

import ast
import difflib
import functools
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from recmoe.config import Config
from recmoe.errors import ConfigError, RequestError
from recmoe.features.columns import shown_names
from recmoe.ranking.texts import short

Values = NDArray[np.float64]

_BINARY: dict[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Values], Values]] = {ast.UAdd: np.positive, ast.USub: np.negative}
_ONE_ARGUMENT: dict[str, Callable[[Values], Values]] = {"log": np.log, "exp": np.exp}
_TWO_ARGUMENTS: dict[str, Callable[[Values, Values], Values]] = {"min": np.minimum, "max": np.maximum}
_MAX_DEPTH = 200
_MAX_COMPARED = 100
"""Characters of a name that is looked for among the known ones: comparing takes their square."""


@dataclass(frozen=True)
class ScoreFormula:
    """An arithmetic expression over task names.

    Allowed are task names, numbers, ``+ - * / **``, parentheses and ``log exp min max``;
    nothing else can be written, so a formula cannot do anything but arithmetic.

    Example: ``ctr * price ** 0.5 - 2 * report``, with tasks ctr, price and report.
    """

    text: str
    names: tuple[str, ...]
    """Tasks it reads, in the order of their first mention."""
    _tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> "ScoreFormula":
        """Read a formula; ConfigError with what is not allowed in it."""
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            detail = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
            raise ConfigError(f'formula "{text}": {detail}; write arithmetic over task names') from error
        names: dict[str, None] = {}
        _check(tree, text, names, depth=0)
        return cls(text=text.strip(), names=tuple(names), _tree=tree)

    @classmethod
    def of_task(cls, name: str) -> "ScoreFormula":
        """The prediction of one task, whatever its name looks like."""
        return cls(text=name, names=(name,), _tree=ast.Name(id=name))

    def check_tasks(self, task_names: Sequence[str]) -> None:
        """ConfigError if it reads a task that does not exist."""
        known = {_written(name) for name in task_names}
        for name in self.names:
            if _written(name) not in known:
                raise ConfigError(f'formula "{self.text}": {unknown_name("task", name, task_names)}')

    def evaluate(self, predictions: Mapping[str, Values]) -> Values:
        """Scores in float64; not finite where the arithmetic is not (a division by zero, the log of a negative).

        Args:
            predictions: one array of N values per task.
        """
        num_rows = len(next(iter(predictions.values())))
        with np.errstate(all="ignore"):
            score_N = _evaluate(self._tree, {_written(name): values for name, values in predictions.items()})
        return np.array(np.broadcast_to(score_N, (num_rows,)), dtype=np.float64)


class RankingConfig(Config):
    """How predictions become one score, and what a request may ask for."""

    scores: dict[str, str] = Field(default_factory=dict)
    """Formulas over task names by name, such as "profit: ctr * cvr * 12"; each task is a score by its own name too."""
    default: str | None = None
    """Score used where a request names none; the first of ``scores``, or else the first task, by default."""
    max_candidates: PositiveInt = 10_000
    """Candidates per request at most."""
    max_id_length: PositiveInt = 2048
    """Characters of an id in a request at most."""
    max_list_length: PositiveInt = 10_000
    """Ids in one list of a request at most."""
    unknown_fields: Literal["warn", "error"] = "warn"
    """What a field does that the model does not know: it is ignored with a warning, or the request is refused."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Formulas that cannot be read, as (key path, message)."""
        for name, text in self.scores.items():
            try:
                ScoreFormula.parse(text)
            except ConfigError as error:
                yield f"scores.{name}", str(error)

    def task_problems(self, task_names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """What does not fit the tasks of the experiment, in formulas that can be read, as (key path, message)."""
        unreadable = {path for path, _ in self.problems()}
        for name, text in self.scores.items():
            if name in task_names:
                yield f"scores.{name}", f"{name} is a task already, which is a score by its own name; choose another"
            if f"scores.{name}" in unreadable:
                continue
            try:
                ScoreFormula.parse(text).check_tasks(task_names)
            except ConfigError as error:
                yield f"scores.{name}", str(error)
        known = list(dict.fromkeys([*self.scores, *task_names]))
        if self.default is not None and self.default not in known:
            yield "default", unknown_name("score", self.default, known)

    def build(self, task_names: Sequence[str]) -> "Scores":
        """The formulas, parsed; ConfigError with the first thing that does not fit the tasks."""
        for path, message in chain(self.problems(), self.task_problems(task_names)):
            raise ConfigError(f"ranking.{path}: {message}")
        formulas = {name: ScoreFormula.parse(text) for name, text in self.scores.items()}
        formulas |= {name: ScoreFormula.of_task(name) for name in task_names}
        return Scores(formulas=formulas, default=self.default or next(iter(formulas)))


@dataclass(frozen=True)
class Scores:
    """The formulas a ranker knows."""

    formulas: Mapping[str, ScoreFormula]
    default: str

    def choose(self, name: str | None) -> tuple[str, ScoreFormula]:
        """A formula by name, the default one for None; RequestError if there is none of that name."""
        chosen = self.default if name is None else name
        if chosen not in self.formulas:
            raise RequestError("score", unknown_name("score", chosen, list(self.formulas)))
        return chosen, self.formulas[chosen]


def unknown_name(kind: str, name: str, known: Sequence[str]) -> str:
    """ "unknown task ctrr, did you mean ctr?", or the list of names where none is near."""
    hint = did_you_mean(name, known) or f"there are {shown_names(known) or 'none'}"
    return f"unknown {kind} {short(name)}, {hint}"


def did_you_mean(name: str, known: Sequence[str]) -> str | None:
    """ "did you mean ctr?", or None where no name is near."""
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= _MAX_COMPARED else []
    return f"did you mean {shown_names(near)}?" if near else None


def _written(name: str) -> str:
    """A name in the form in which Python reads it from a formula."""
    return unicodedata.normalize("NFKC", name)


def _check(node: ast.expr, text: str, names: dict[str, None], *, depth: int) -> None:
    """Walk the tree; ConfigError at the first node that is not arithmetic over names."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f'formula "{text}": nested more than {_MAX_DEPTH} deep; simplify it')
    children: list[ast.expr]
    match node:
        case ast.Constant(value=bool() | str() | bytes() | complex() | None):
            raise ConfigError(f'formula "{text}": {ast.unparse(node)} is not a number')
        case ast.Constant(value=int() | float() as number):
            if not -1e300 < number < 1e300:
                raise ConfigError(f'formula "{text}": a number in it is too large')
            children = []
        case ast.Name(id=name):
            names[name] = None
            children = []
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            children = [left, right]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            children = [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _ONE_ARGUMENT | _TWO_ARGUMENTS:
            wanted = 1 if name in _ONE_ARGUMENT else 2
            if (len(arguments) != 1) if wanted == 1 else (len(arguments) < 2):
                count = "one value" if wanted == 1 else "two values or more"
                raise ConfigError(f'formula "{text}": {name} takes {count}, got {len(arguments)}')
            children = arguments
        case _:
            raise ConfigError(
                f'formula "{text}": {ast.unparse(node)} is not allowed; '
                "allowed are task names, numbers, + - * / **, parentheses, log, exp, min, max"
            )
    for child in children:
        _check(child, text, names, depth=depth + 1)


def _evaluate(node: ast.expr, predictions: Mapping[str, Values]) -> Values:
    match node:
        case ast.Constant(value=int() | float() as number):
            return np.asarray(float(number))
        case ast.Name(id=name):
            return predictions[_written(name)].astype(np.float64)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, predictions), _evaluate(right, predictions))
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY[type(sign)](_evaluate(operand, predictions))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            values = [_evaluate(argument, predictions) for argument in arguments]
            if name in _ONE_ARGUMENT:
                return _ONE_ARGUMENT[name](values[0])
            return functools.reduce(_TWO_ARGUMENTS[name], values)
    raise AssertionError(f"_check lets {ast.dump(node)} through")
