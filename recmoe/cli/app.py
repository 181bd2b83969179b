"""main(): the commands under one name, and what the process tells its caller by its exit code.

0 done · 1 something to mend, said on stderr · 2 wrong usage · 130 stopped by Ctrl-C

Heavy packages are imported inside the commands: the help must come at once.
"""

import errno
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from recmoe import __version__
from recmoe.cli.adapt import adapt, metalearn
from recmoe.cli.architecture import check_architecture
from recmoe.cli.bench import bench_app
from recmoe.cli.checkpoint import checkpoint_app
from recmoe.cli.daily import daily
from recmoe.cli.data import data_app
from recmoe.cli.derive import distil, moefy, prune_experts, quantize, upcycle
from recmoe.cli.doctor import doctor
from recmoe.cli.explain import explain, explain_gates
from recmoe.cli.init import init
from recmoe.cli.models import promote, register, rollback
from recmoe.cli.plan import plan
from recmoe.cli.predict import predict
from recmoe.cli.prepare import prepare
from recmoe.cli.pretrain import pretrain
from recmoe.cli.runs import evaluate, export, train
from recmoe.cli.serving import rank, serve
from recmoe.cli.stores import items_app, users_app
from recmoe.cli.tune import tune
from recmoe.errors import RecmoeError

app = typer.Typer(
    name="recmoe",
    help="Multi-task ranking: from click and conversion logs to a ranking API.",
    epilog="A first model: recmoe data synthetic --to demo, then recmoe train demo/config.yaml --run-dir runs/first",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"recmoe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


app.command(epilog="Example: recmoe doctor --json")(doctor)
app.command(epilog="Example: recmoe check-architecture mypackage.gates:MyGateConfig --loop mypackage.loops:my_gate")(
    check_architecture
)
app.add_typer(data_app)
app.command(epilog="Example: recmoe init logs/*.csv --to data/shop")(init)
app.command(
    epilog="Example: recmoe plan --measure, then recmoe plan configs/ple.yaml --workers 2, or "
    "recmoe plan configs/ple.yaml --topology configs/topologies/128x80gb.yaml --rows item_id=1e10 --width 64"
)(plan)
app.command(epilog="Example: recmoe prepare configs/ple.yaml --run-dir runs/ple --workers 2 --memory 8GB")(prepare)
app.command(epilog="Example: recmoe train configs/ple.yaml training.epochs=3 --run-dir runs/ple --workers 2")(train)
app.command(epilog="Example: recmoe pretrain configs/ple.yaml model.pretraining.share=0.3 --run-dir runs/pretrained")(
    pretrain
)
app.command(
    epilog="Example: recmoe distil models:/shop@champion configs/shared_bottom.yaml model.distillation.temperature=2"
)(distil)
app.command(epilog="Example: recmoe upcycle runs/dense configs/mmoe.yaml --noise 0.02 --run-dir runs/upcycled")(upcycle)
app.command(epilog="Example: recmoe prune-experts models:/shop@champion --keep 4 --to bundles/shop-4")(prune_experts)
app.command(epilog="Example: recmoe moefy models:/shop@champion --experts 16 --use 4 --to bundles/shop-split")(moefy)
app.command(epilog="Example: recmoe quantize models:/shop@champion --tables int8 --to bundles/shop-int8")(quantize)
app.command(
    epilog="Example: recmoe metalearn models:/shop@champion --domain country --to bundles/start adaptation.steps=20"
)(metalearn)
app.command(epilog="Example: recmoe adapt bundles/start --data few.parquet --to bundles/adapted")(adapt)
app.command(epilog="Example: recmoe tune mylog/config.yaml --to tuning/first --trials 30 --time 20m")(tune)
app.command(epilog="Example: recmoe daily configs/ple.yaml --days 'log/day=*' --run-dir runs/shop-daily")(daily)
app.add_typer(checkpoint_app)
app.command(epilog="Example: recmoe evaluate models:/shop@champion --data logs/today.parquet --to today")(evaluate)
app.command(epilog="Example: recmoe explain models:/shop@champion --rows 1000 --to explained.jsonl")(explain)
app.command(epilog="Example: recmoe explain-gates models:/shop@champion --rows 1000 --to gates")(explain_gates)
app.command(
    epilog="Example: recmoe predict runs/ple --data logs/today.csv --to predictions.parquet, and recmoe predict "
    "models:/shop@champion --data 'logs/*.parquet' --to predictions --workers 8"
)(predict)
app.command(epilog="Example: recmoe export runs/ple --to bundles/ple")(export)
app.command(epilog="Example: recmoe register runs/ple --name shop")(register)
app.command(epilog="Example: recmoe promote shop 3 --note 'better cvr'")(promote)
app.command(epilog="Example: recmoe rollback shop")(rollback)
app.command(
    epilog="A setting is a flag, an environment variable or a key of the file; the first given holds. "
    "Example: recmoe serve models:/shop@champion --port 8000, or RECMOE_SERVE_DEADLINE_MS=200 recmoe serve "
    "bundles/ple --workers 2 --threads 1 --queue 64, or recmoe serve runs/ple --config serve.yaml, or on a cluster "
    "recmoe serve models:/shop@champion --replicas 2 --max-replicas 8",
    context_settings={"auto_envvar_prefix": "RECMOE_SERVE"},
)(serve)
app.command(epilog="Example: recmoe rank request.json --model models:/shop@champion --json")(rank)
app.add_typer(items_app)
app.add_typer(users_app)
app.add_typer(bench_app)

MENDABLE = {
    errno.ENOSPC: "the disk is full; free some space and go on (what was committed before is kept)",
    errno.EDQUOT: "the disk quota is used up; free some space and go on",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the disk is read-only; choose another folder",
}
"""What the system refuses and the user can mend."""


def main() -> None:
    """Run the command line and exit; errors that a user can mend come without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows fewer letters shows "?" for the others.
            stream.reconfigure(errors="replace")
    try:
        with _warnings_shown():
            app()
    except RecmoeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(f"error: {error.filename or 'write'}: {MENDABLE[error.errno]}", file=sys.stderr)
        sys.exit(1)


class _Line(logging.Formatter):
    """ "warning: the message", or "error: " for what is worse."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """What is warned of goes to stderr in one form, whatever other packages do to Python's logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    handler.setLevel(logging.WARNING)
    loggers = [logging.getLogger(package) for package in ("recmoe", "pipelines", "serving")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
