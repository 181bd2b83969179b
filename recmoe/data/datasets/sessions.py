"""ItemEvents: what a session did with which item, asked for many (session, step, item) at once."""

# N events, Q questions

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemEvents:
    """Events on items, in the order of sessions and steps.

    Example: session 0 looks at item 7, then 9, then 7 again::

        session_N  0  0  0
        step_N     1  2  5          before(session 0, step 5, item 7) = 1 event, the last of them in row 0
        item_N     7  9  7          after (session 0, step 2, item 7) = 1 event
    """

    session_N: Ints
    step_N: Ints
    """From 1, increasing within a session."""
    item_N: Ints

    def before(self, session_Q: Ints, step_Q: Ints, item_Q: Ints) -> tuple[Ints, Ints]:
        """Earlier events of the same session on the same item.

        Returns:
            num_Q: how many.
            row_Q: row of the latest; -1 without any.
        """
        order_N, keys_N, first_Q, _ = self._keys(session_Q, step_Q, item_Q)
        end_Q = np.searchsorted(keys_N, first_Q + step_Q, side="left")
        num_Q = end_Q - np.searchsorted(keys_N, first_Q, side="left")
        return num_Q, np.where(num_Q > 0, order_N[np.maximum(end_Q - 1, 0)], -1)

    def after(self, session_Q: Ints, step_Q: Ints, item_Q: Ints) -> Ints:
        """How many later events of the same session are on the same item."""
        _, keys_N, first_Q, num_steps = self._keys(session_Q, step_Q, item_Q)
        end_Q = np.searchsorted(keys_N, first_Q + num_steps, side="left")
        return end_Q - np.searchsorted(keys_N, first_Q + step_Q, side="right")

    def latest(self, session_Q: Ints, step_Q: Ints) -> Ints:
        """Row of the session's last event before a step; -1 without any."""
        keys_N, first_Q = self._session_keys(np.arange(self.item_N.size), session_Q, step_Q)
        end_Q = np.searchsorted(keys_N, first_Q + step_Q, side="left")
        return np.where(end_Q > np.searchsorted(keys_N, first_Q, side="left"), end_Q - 1, -1)

    def history(self, session_Q: Ints, step_Q: Ints, *, max_length: int, repeats: bool = False) -> tuple[Ints, Ints]:
        """The last events of a session before a step, oldest first.

        Args:
            session_Q: of each question.
            step_Q: of each question.
            max_length: events per question.
            repeats: whether all events count; otherwise several in a row on an item count once, as the first.

        Returns:
            offsets: where the events of each question start, and the end of the last; Q + 1 of them.
            rows: of the events of all questions, one after the other.
        """
        is_repeat_N = np.zeros(self.item_N.size, dtype=bool)
        if not repeats:
            is_repeat_N[1:] = (self.item_N[1:] == self.item_N[:-1]) & (self.session_N[1:] == self.session_N[:-1])
        kept = np.flatnonzero(~is_repeat_N)
        keys, first_Q = self._session_keys(kept, session_Q, step_Q)
        end_Q = np.searchsorted(keys, first_Q + step_Q, side="left")
        length_Q = np.minimum(end_Q - np.searchsorted(keys, first_Q, side="left"), max_length)
        offsets = np.concatenate([[0], np.cumsum(length_Q)])
        places = np.arange(offsets[-1]) + np.repeat(end_Q - length_Q - offsets[:-1], length_Q)
        return offsets, kept[places]

    def _num_steps(self, step_Q: Ints) -> int:
        return int(max(self.step_N.max(initial=0), step_Q.max(initial=0))) + 1

    def _session_keys(self, rows: Ints, session_Q: Ints, step_Q: Ints) -> tuple[Ints, Ints]:
        """One increasing number per row from (session, step), and that of step 0 for each question."""
        num_steps = self._num_steps(step_Q)
        return self.session_N[rows] * num_steps + self.step_N[rows], session_Q * num_steps

    def _keys(self, session_Q: Ints, step_Q: Ints, item_Q: Ints) -> tuple[Ints, Ints, Ints, int]:
        """The events' order by (session, item, step), their keys in it, the key of step 0 of each question."""
        assert self.item_N.size, "at least one event is needed"
        num_steps = self._num_steps(step_Q)
        items, code_N = np.unique(self.item_N, return_inverse=True)
        # An item without any event gets the code after the last.
        code_Q = np.minimum(np.searchsorted(items, item_Q), items.size - 1)
        code_Q = np.where(items[code_Q] == item_Q, code_Q, items.size)
        order_N = np.lexsort((self.step_N, code_N, self.session_N))
        keys_N = ((self.session_N * (items.size + 1) + code_N) * num_steps + self.step_N)[order_N]
        return order_N, keys_N, (session_Q * (items.size + 1) + code_Q) * num_steps, num_steps
