"""Tokens: features, group by group, as vectors of one width."""

# B rows, T tokens, D width of a token

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.trunks.trunk import TrunkKind
from recmoe.moe.linear import Groups, linear

REST = "other features"
TOKEN = "trunk token "
"""Names of the groups of features that hold the tokens begin so."""


class TokensKind(TrunkKind):
    """A kind of trunk that reads features as tokens."""

    tokens: PositiveInt | Annotated[tuple[str, ...], Field(min_length=1)] = 8
    """Groups of features (``model.groups``), a token each, such as ``[user, item, page]``; features in none of them are
    one token more. Or a number: the features, in order, are shared out over so many tokens of similar widths."""

    def groups(self, widths: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """The tokens."""
        if isinstance(self.tokens, int):
            pieces = share_out(widths, self.tokens)
            return {f"{TOKEN}{place}": piece for place, piece in enumerate(pieces)}
        chosen = {name: tuple(named[name]) for name in self.tokens}
        rest = tuple(feature for feature in widths if feature not in set(chain.from_iterable(chosen.values())))
        return {f"{TOKEN}{name}": features for name, features in {**chosen, **({REST: rest} if rest else {})}.items()}

    def group_problems(self, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Tokens that are no groups of features, or are named twice."""
        if isinstance(self.tokens, int):
            return
        for name in dict.fromkeys(self.tokens):
            if name not in groups:
                known = ", ".join(groups) or "none"
                problem = f"no such group of features: {name} (there are: {known})"
                yield "tokens", f"{problem}; name its features in model.groups"
            elif self.tokens.count(name) > 1:
                yield "tokens", f"{name} is given twice; a group is one token"


def share_out(widths: Mapping[str, int], num_tokens: int) -> list[tuple[str, ...]]:
    """Features in order, in as many pieces of similar widths; fewer where there are fewer features.

    A feature belongs to the piece that its middle lies in, if all were cut evenly; every piece has one at least.

    Example: five features in two pieces::

        widths   user 8   age 1   city 3 | item 8   price 4       24 floats, the middle of item is at 16
    """
    total, names = sum(widths.values()), list(widths)
    num_tokens = min(num_tokens, len(names))
    pieces: list[list[str]] = [[] for _ in range(num_tokens)]
    start = piece = 0
    for place, name in enumerate(names):
        wanted = int((start + widths[name] / 2) * num_tokens / total)
        # Neither is a piece left out, nor are fewer features left than pieces.
        piece = max(piece, num_tokens - len(names) + place, min(wanted, piece + 1 if pieces[piece] else piece))
        pieces[piece].append(name)
        start += widths[name]
    return [tuple(piece) for piece in pieces]


def token_widths(widths: Mapping[str, int]) -> dict[str, int]:
    """Floats of the features of each token, by its name, from those of all groups."""
    return {name.removeprefix(TOKEN): width for name, width in widths.items() if name.startswith(TOKEN)}


def read_tokens(groups: Groups, names: Sequence[str], matrices: Iterable[nn.Module]) -> Tensor:
    """x_BTD: the features of every token through its own linear layer."""
    tokens = zip(names, matrices, strict=True)
    return torch.stack(
        [linear(groups[f"{TOKEN}{name}"], token.weight, token.bias) for name, token in tokens],  # type: ignore[arg-type]
        dim=1,
    )
