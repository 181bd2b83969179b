"""metalearn(): a bundle from which few steps learn a domain, and what it gains and costs."""

# N rows of the training split, n rows of a domain, D domains

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.parquet import ParquetStream
from recmoe.errors import ConfigError, DataError
from recmoe.evaluation.evaluate import slice_text
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle, check_free
from recmoe.features.batch import Batch
from recmoe.runs.cost import Cost
from recmoe.runs.derived import Derivation
from recmoe.runs.few_rows import Rows, copy_of, drawn, encoded
from recmoe.runs.origin import Origin

CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class MetaLearned:
    """A start, and the domains that it was found on."""

    bundle: ModelBundle
    domains: Mapping[str, int]
    """Rows of each."""
    left_out: Mapping[str, int]
    """Rows of domains that have too few."""
    cost: Cost
    seconds: float


def metalearn(
    origin: Origin, target: Path, *, domain: str, overrides: Sequence[str] = (), cache_dir: Path
) -> MetaLearned:
    """Write a bundle whose dense weights are a start from which few steps learn a domain.

    In every round some domains of the training split are drawn, and the model takes ``adaptation.steps`` steps on rows
    of each; then the start moves as ``adaptation.meta`` says. Tables stay as they are: a step on few rows would touch
    few of their rows, and leave these where no other row of the table is.

    Args:
        origin: the model that it begins as.
        target: folder to make.
        domain: the feature whose ids are the domains.
        overrides: ``key.path=value`` for the model's config, such as ``adaptation.steps=20``.
        cache_dir: where rows are encoded.

    Raises:
        ConfigError: an override that does not fit, or the domain is no feature of kind id.
        DataError, SchemaError: the rows cannot be read, or fewer than two domains have enough.
        BundleError, TrainingError: the folder is there, or the origin cannot be read.
    """
    check_free(target)
    started_s = time.perf_counter()
    derivation = Derivation.of(origin.load(), cache_dir=cache_dir, overrides=overrides)
    config = derivation.config
    rule = config.adaptation
    stream = derivation.stream("train")
    rows_of = rows_by_domain(stream, _column(config, domain))
    # Steps on rows of a domain, and a batch of others to see where they lead.
    fewest = 2 * rule.batch_size
    large = {name: of_n for name, of_n in rows_of.items() if len(of_n) >= fewest}
    if len(large) < 2:
        raise DataError(
            f"{domain} has {len(large)} domains of {fewest} rows and more among {len(rows_of)}, and two are the "
            "least that a start is found on; choose a feature with larger domains, or lower adaptation.batch_size"
        )
    rows = encoded(stream, derivation.encoder, cache_dir=cache_dir)
    copy = copy_of(origin, config, derivation.encoder)
    learner = rule.build(copy.model, is_new=copy.is_new)
    meta = rule.meta.build(learner)
    random = np.random.default_rng(config.seed)
    batches = [_batches(rows, of_n, config, random) for of_n in large.values()]
    for done in range(rule.meta.rounds):
        chosen = random.choice(len(batches), min(rule.meta.domains, len(batches)), replace=False)
        meta.round([batches[place] for place in chosen], num_steps=rule.steps, left=1.0 - done / rule.meta.rounds)
    made, cost = derivation.write(target, config=config, model=copy.model.ranker.eval(), lineage=origin.lineage)
    sizes = {name: len(of_n) for name, of_n in rows_of.items()}
    return MetaLearned(
        made,
        {name: sizes[name] for name in large},
        {name: size for name, size in sizes.items() if name not in large},
        cost,
        time.perf_counter() - started_s,
    )


def _column(config: ExperimentConfig, domain: str) -> str:
    """The raw column of an id feature."""
    problem = next(config.id_problems("--domain", domain), None)
    if problem is not None:
        raise ConfigError(": ".join(problem))
    (column,) = config.inputs.features[domain].raw_columns(domain)
    return column.name


def rows_by_domain(stream: ParquetStream, column: str) -> dict[str, Rows]:
    """Numbers of the rows of each value, most frequent first; rows without one are in no domain."""
    stream.require([column])
    found: dict[str, list[Rows]] = {}
    first = 0
    for block in stream.blocks_in_file_order([(0, stream.num_rows)], batch_size=CHUNK_ROWS, columns=[column]):
        values = pc.dictionary_encode(block.table[column].combine_chunks())
        codes = pc.fill_null(values.indices, -1).to_numpy()
        for code, value in enumerate(values.dictionary.to_pylist()):
            if value == value:
                found.setdefault(slice_text(value), []).append(first + np.flatnonzero(codes == code))
        first += block.table.num_rows
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return dict(sorted(joined.items(), key=lambda item: (-len(item[1]), item[0])))


def _batches(rows: EncodedRows, of_n: Rows, config: ExperimentConfig, random: np.random.Generator) -> Iterator[Batch]:
    block = config.data.shuffle_block or 1
    return drawn(rows, of_n, batch_size=config.adaptation.batch_size, block=block, random=random)
