"""make_sharder(): what turns the collection of tables into shards."""

import warnings

from recmoe.embeddings.codecs import make_codecs
from recmoe.embeddings.sharding_config import CommunicationConfig
from recmoe.features.layout import InputLayout

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder


class _Sharder(EmbeddingBagCollectionSharder):
    """torchrec offers the kinds that cut rows on GPUs alone, though its CPU kernels compute them as well."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        del compute_device_type
        kinds: list[str] = super().sharding_types("cuda")
        return kinds


def make_sharder(communication: CommunicationConfig, layout: InputLayout) -> EmbeddingBagCollectionSharder:
    """The sharder of the tables of a layout, with the codecs by which its shards talk."""
    return _Sharder(qcomm_codecs_registry=make_codecs(communication, layout))
