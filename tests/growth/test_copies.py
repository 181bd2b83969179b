"""Rows with a vector per task: each goes on as its task's, and a model of one vector gives it to all."""

from recmoe.features.layout import TableSpec
from recmoe.growth.carry import column_sources

LOGITS = ("click",)


def spec(width: int, num_linear: int = 0) -> TableSpec:
    return TableSpec(
        name="user", num_rows=3, width=width + num_linear, pooling="sum", keys=("user",), num_linear=num_linear
    )


def sources(old: tuple[str, ...], new: tuple[str, ...]) -> list[int]:
    widths = [2 * max(1, len(copies)) for copies in (old, new)]
    return column_sources(spec(widths[0]), spec(widths[1]), (LOGITS, LOGITS), (old, new))


def test_vectors_follow_their_tasks_when_one_is_put_in_front() -> None:
    assert sources(("shared", "click"), ("shared", "late", "click")) == [0, 1, -1, -1, 2, 3]


def test_only_vector_of_a_model_is_the_shared_one() -> None:
    assert sources((), ("shared", "click")) == [0, 1, -1, -1]
    assert sources(("click", "shared"), ()) == [2, 3]


def test_weights_of_the_linear_part_stand_behind_all_vectors() -> None:
    old, new = spec(4, num_linear=4), spec(6, num_linear=4)

    found = column_sources(old, new, (("click", "buy"), ("buy", "click")), (("shared", "a"), ("shared", "b", "a")))

    assert found == [0, 1, -1, -1, 2, 3, 5, 4, -1, -1]
    assert max(found) < old.width
