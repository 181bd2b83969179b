"""LevelUse: all that is measured of a level's gates and experts while rows are scored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from recmoe.moe.balance.usage import ExpertUsage, expert_usage
from recmoe.moe.gate_use import GateUse
from recmoe.moe.segment_use import Segmented, SegmentUse, segment_use
from recmoe.moe.similarity import ExpertSimilarity, similarity_of


@dataclass(frozen=True)
class LevelUse:
    """How the gates of a level used its experts, and how alike these are."""

    usage: ExpertUsage
    """Over all rows, whatever they count for."""
    by_segment: SegmentUse
    similarity: ExpertSimilarity

    def merge(self, other: "LevelUse") -> "LevelUse":
        """That over the rows of both."""
        return LevelUse(
            usage=self.usage.merge(other.usage),
            by_segment=self.by_segment.merge(other.by_segment),
            similarity=self.similarity.merge(other.similarity),
        )

    def most_frequent(self, max_values: int) -> "LevelUse":
        """With the most frequent values of each column alone; see ``SegmentUse``."""
        return replace(self, by_segment=self.by_segment.most_frequent(max_values))


def level_use(
    use: GateUse, *, num_rows: int, segmented: Segmented, counts: Mapping[str, Tensor], num_probed: int
) -> LevelUse:
    """Of the first rows of a batch; the others are padding.

    Args:
        segmented: those rows.
        counts: by task, a number per row of the batch: 1 where the row counts for the task.
        num_probed: rows on which experts are compared, at most; all experts are computed once more on them.
    """
    # A worker without a row of its own still has a usage to merge.
    few = replace(use, weights_BGE=use.weights_BGE[: max(num_rows, 1)])
    similarity = ExpertSimilarity(())
    num_probed = min(num_probed, num_rows)
    if num_probed and use.outputs is not None:
        similarity = similarity_of(use.outputs(num_probed), segmented.first_rows(num_probed))
    return LevelUse(
        usage=expert_usage(few),
        by_segment=segment_use(few, segmented, {task: of_task[: max(num_rows, 1)] for task, of_task in counts.items()}),
        similarity=similarity,
    )
