"""SplitFiles: where the splits of a fit are, and the config that ``init`` writes beside them."""

import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from recmoe.data.splits import SPLITS, Split
from recmoe.errors import DataError
from recmoe.face.chosen_tasks import TaskChoice, choose_tasks, outcome_columns
from recmoe.face.frames import Rows, as_files
from recmoe.onboarding.split_rule import Shares, SplitBy
from recmoe.onboarding.starter import split_log, starter_config

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFiles:
    """Makes the splits of one log, or takes those that are given."""

    data: Rows | Mapping[Split, Rows]
    """One log, or one for each split."""
    folder: Path
    """Where frames, splits and the config go."""
    reading: Sequence[str]
    """How files are read: overrides such as ``data.on_error=skip``."""
    by: SplitBy
    """What the rows of one log are split by."""
    shares: Shares
    """Of the rows of one log, for each split."""
    seed: int
    """Of the split."""

    def starter(self, name: str, *, tasks: TaskChoice | None, leave_out: Sequence[str]) -> Path:
        """Splits and config as ``init`` makes them, with the tasks that were chosen; the config's path."""
        given = self._given()
        with tempfile.TemporaryDirectory(prefix="recmoe-") as scratch:
            files = self._one(Path(scratch)) if given is None else [Path(file) for file in given["train"]]
            starter = starter_config(
                files,
                reading=self.reading,
                output_dir=self.folder if given is None else None,
                seed=self.seed,
                split_by=self.by,
                shares=self.shares,
                labels=[] if tasks is None else outcome_columns(tasks),
                leave_out=leave_out,
            )
        for warning in starter.warnings:
            _logger.warning("%s", warning)
        text = starter.text
        if tasks is not None or given is not None:
            document = yaml.safe_load(text)
            if tasks is not None:
                choose_tasks(document, tasks)
            if given is not None:
                document["data"] = {**document["data"], "validation": [], "test": [], **given}
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        title = f"name: {json.dumps(name, ensure_ascii=False)}"
        text = re.sub(r"^name: .*$", lambda _: title, text, count=1, flags=re.MULTILINE)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def for_config(self) -> dict[Split, list[str]]:
        """The files of each split, for a config that is there already; one log is shared out as ``init`` does."""
        given = self._given()
        if given is not None:
            return given
        with tempfile.TemporaryDirectory(prefix="recmoe-") as scratch:
            split_log(
                self._one(Path(scratch)),
                reading=self.reading,
                output_dir=self.folder,
                seed=self.seed,
                split_by=self.by,
                shares=self.shares,
            )
        return {name: [str(self.folder.resolve() / f"{name}.parquet")] for name in SPLITS}

    def _one(self, scratch: Path) -> list[Path]:
        assert not isinstance(self.data, Mapping)
        return [Path(file) for file in as_files(self.data, scratch / "log.parquet")]

    def _given(self) -> dict[Split, list[str]] | None:
        if not isinstance(self.data, Mapping):
            return None
        unknown = [name for name in self.data if name not in SPLITS]
        if unknown or "train" not in self.data:
            raise DataError(
                f"data: expected splits train, validation and test, train at least; got {', '.join(self.data)}"
            )
        found = {
            name: as_files(rows, self.folder / f"{name}.parquet", what=f"data[{name!r}]")
            for name, rows in self.data.items()
        }
        # Paths count from the working directory, also after it has changed.
        return {name: [str(Path(file).resolve()) for file in files] for name, files in found.items()}
