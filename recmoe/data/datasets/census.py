"""Census-Income (KDD): income above 50,000 dollars and never married, two tasks over 40 attributes of a person.

UCI Machine Learning Repository, https://archive.ics.uci.edu/dataset/117. The benchmark of the MMoE and PLE papers:
train on ``.data``, split ``.test`` 1:1 into validation and test.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from recmoe.data.datasets.source import find_source, place_config, random_split
from recmoe.data.splits import write_splits
from recmoe.errors import DataError

ABOUT = "Census-Income (KDD) of the UCI repository"
ENDINGS = ("", ".gz", ".bz2")

# The files have no header: names in the order of the codebook, census-income.names.
COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour", "enrolled_last_week",
    "marital_stat", "major_industry", "major_occupation", "race", "hispanic_origin", "sex", "union_member",
    "unemployment_reason", "employment_status", "capital_gains", "capital_losses", "dividends", "tax_filer",
    "previous_region", "previous_state", "household_detail", "household_summary", "instance_weight", "migration_msa",
    "migration_region", "migration_within_region", "same_house", "previous_sunbelt", "num_employees",
    "parents_present", "father_country", "mother_country", "own_country", "citizenship", "self_employed",
    "veteran_questionnaire", "veterans_benefits", "weeks_worked", "year", "income_class",
)  # fmt: skip
NUMBERS = ("age", "wage_per_hour", "capital_gains", "capital_losses", "dividends", "num_employees", "weeks_worked")
INCOMES = ("- 50000.", "50000+.")
NEVER_MARRIED = "Never married"
# instance_weight tells how the person was sampled, marital_stat is the second label.
DROPPED = ("instance_weight", "marital_stat", "income_class")


def import_census(source: Path, target: Path, seed: int) -> Path:
    """Write the splits and the config; returns the config's path.

    Raises:
        DataError: one of the two files is missing or is another file.
    """
    train = _read(find_source(source, [f"census-income.data{ending}" for ending in ENDINGS], about=ABOUT), 0)
    held_out = _read(
        find_source(source, [f"census-income.test{ending}" for ending in ENDINGS], about=ABOUT), train.num_rows
    )
    halves = random_split(held_out.num_rows, {"validation": 0.5, "test": 0.5}, seed=seed)
    write_splits(
        target,
        {
            "train": train,
            "validation": held_out.take(halves["validation"]),
            "test": held_out.take(halves["test"]),
        },
    )
    return place_config("census", target)


def _read(path: Path, first_person: int) -> pa.Table:
    try:
        table = pc_csv.read_csv(
            path,
            read_options=pc_csv.ReadOptions(column_names=COLUMNS),
            # "?" and "NA" are answers like any other.
            convert_options=pc_csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} is not the expected file: {len(COLUMNS)} columns without a header ({error})"
        ) from error
    columns = {name: pc.utf8_trim_whitespace(table[name]) for name in COLUMNS}
    if not set(pc.unique(columns["income_class"]).to_pylist()) <= set(INCOMES):
        raise DataError(f"{path} is not the expected file: the last column must be one of {' '.join(INCOMES)}")
    people = {"person_id": pa.array(np.arange(first_person, first_person + table.num_rows))}
    for name in COLUMNS:
        if name not in DROPPED:
            people[name] = _number(path, name, columns[name]) if name in NUMBERS else columns[name]
    people["income"] = pc.equal(columns["income_class"], INCOMES[1]).cast(pa.int8())
    people["never_married"] = pc.equal(columns["marital_stat"], NEVER_MARRIED).cast(pa.int8())
    return pa.table(people)


def _number(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not the expected file: column {name} must hold integers ({error})") from error
