"""Mean and sum of a history: every entry counts alike, whatever the candidate."""

# R requests, L entries of a history, C candidates, D width of an entry

from typing import ClassVar, Literal

from torch import Tensor, nn

from recmoe.config import Config
from recmoe.sequence.encoded_history import EncodedHistory, without_padding


class MeanHistoryConfig(Config):
    """The mean of the entries."""

    kind: Literal["mean"] = "mean"
    reads_candidate: ClassVar[bool] = False

    def width_of(self, in_features: int) -> int:
        """Floats of the vector that becomes of entries of such a width."""
        return in_features

    def build(self, *, in_features: int, query_features: int, max_length: int, has_ages: bool) -> "PooledHistory":
        """The encoder of histories of such a width."""
        del query_features, max_length, has_ages
        return PooledHistory(in_features=in_features, is_mean=True)


class SumHistoryConfig(Config):
    """The sum of the entries: long histories weigh more."""

    kind: Literal["sum"] = "sum"
    reads_candidate: ClassVar[bool] = False

    def width_of(self, in_features: int) -> int:
        """Floats of the vector that becomes of entries of such a width."""
        return in_features

    def build(self, *, in_features: int, query_features: int, max_length: int, has_ages: bool) -> "PooledHistory":
        """The encoder of histories of such a width."""
        del query_features, max_length, has_ages
        return PooledHistory(in_features=in_features, is_mean=False)


class PooledHistory(nn.Module):
    """The sum of the entries, or their mean.

    Args:
        in_features: D.
        is_mean: whether the sum is divided by the number of entries.
    """

    reads_candidate = False

    def __init__(self, *, in_features: int, is_mean: bool) -> None:
        super().__init__()
        self.out_features = in_features
        self._is_mean = is_mean

    def encode(self, history_RLD: Tensor, mask_RL: Tensor, ages_RL: Tensor | None = None) -> EncodedHistory:
        """One entry per request: its sum or mean, in float32."""
        del ages_RL
        pooled_RD = without_padding(history_RLD, mask_RL).float().sum(dim=1)
        if self._is_mean:
            pooled_RD = pooled_RD / mask_RL.sum(dim=1, keepdim=True).clamp(min=1)
        return EncodedHistory((pooled_RD[:, None],), mask_RL.any(dim=1, keepdim=True))

    def attend(self, encoded: EncodedHistory, query_CQ: Tensor | None, request_C: Tensor | None) -> Tensor:
        """vector_CD: that of the candidate's request."""
        del query_CQ
        pooled_RD = encoded.parts[0][:, 0]
        return pooled_RD if request_C is None else pooled_RD.index_select(0, request_C)
