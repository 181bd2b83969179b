"""make_sharders(): what turns the collections of tables into shards."""

import warnings
from typing import Any

from recmoe.embeddings.codecs import make_codecs
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.layout import InputLayout

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder


class _BagSharder(EmbeddingBagCollectionSharder):
    """torchrec offers the kinds that cut rows on GPUs alone, though its CPU kernels compute them as well."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        del compute_device_type
        kinds: list[str] = super().sharding_types("cuda")
        return kinds


def make_sharders(config: TablesConfig, layout: InputLayout, *, device_type: str) -> list[Any]:
    """The sharders of pooled and of unpooled tables, with the codecs by which their shards talk."""
    codecs = make_codecs(config.communication, layout)
    # fbgemm makes the ids of unpooled tables distinct on GPUs alone; on CPUs they travel as they are.
    dedup_ids = config.dedup_ids and device_type == "cuda"
    return [
        _BagSharder(qcomm_codecs_registry=codecs),
        EmbeddingCollectionSharder(qcomm_codecs_registry=codecs, use_index_dedup=dedup_ids),
    ]
