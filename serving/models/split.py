"""UserSplit: which users the challenger answers, always the same ones."""

import hashlib
import math
from typing import Literal

from recmoe.errors import ServingError
from recmoe.ranking.items.table import user_columns
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankOptions

Arm = Literal["champion", "challenger", "no_user"]
"""Who answers a request; without the user's id it is the champion."""

_SALT = "recmoe.challenger"
_RANGE = 2.0**64


class UserSplit:
    """Draws a number from 0 to 1 for every user, out of a hash of the id: the challenger has those below its share.

    A larger share keeps the users of a smaller one. 17, "17" and 17.0 are one user.

    Args:
        share: of the users.
        column: column of the request's user that is the id; by default the only id that the model has of a user.
    """

    def __init__(self, *, share: float, column: str | None) -> None:
        self.share, self._column = share, column

    def settle(self, champion: Ranker) -> None:
        """Find the user's column; ServingError where the model has none, or several to choose from."""
        if self.share == 0 or self._column is not None:
            return
        columns = user_columns(champion.request_columns["user"])
        if len(columns) != 1:
            found = f"has several ids of a user: {', '.join(columns)}" if columns else "has no id of a user"
            raise ServingError(f"challenger_share: the model {found}; set split_by to the column that names the user")
        self._column = columns[0]

    def arm(self, request: RankOptions) -> Arm:
        """Who answers a request."""
        user = request.user.get(self._column or "")
        if isinstance(user, float) and math.isfinite(user) and user == int(user):
            user = int(user)
        if not isinstance(user, str | int | float):
            return "no_user"
        drawn = hashlib.blake2b(f"{_SALT}:{user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return "challenger" if int.from_bytes(drawn) / _RANGE < self.share else "champion"
