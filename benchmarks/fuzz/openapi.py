"""run_schemathesis(): requests that Schemathesis makes of a server's OpenAPI document."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from recmoe.errors import StackError

SETTINGS = """
[checks]
# A deadline of the client's own that has passed.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


def run_schemathesis(url: str, *, seconds: float, seed: int) -> tuple["Counter[tuple[str, str]]", list[str]]:
    """Let Schemathesis ask a server.

    Returns:
        requests by route and status, and the failures that it tells of.

    Raises:
        StackError: it is not installed, or could not run.
    """
    if importlib.util.find_spec("schemathesis") is None:
        raise StackError("schemathesis is not installed: pip install -r requirements/dev.in, or give --without-openapi")
    with tempfile.TemporaryDirectory() as folder:
        settings, report, requests = (Path(folder) / name for name in ("settings.toml", "report.json", "all.har"))
        settings.write_text(SETTINGS, encoding="utf-8")
        command = [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(settings), "run", f"{url}/openapi.json", "--checks", "all"),
            # Which columns a candidate needs is not in the document, which is the same for any model.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--max-time", f"{seconds:g}", "--seed", str(seed), "--generation-database", "none", "--no-color"),
            *("--continue-on-failure", "--report", "json,har"),
            *("--report-json-path", str(report), "--report-har-path", str(requests)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not report.exists() or not requests.exists():
            raise StackError(f"schemathesis could not run: {(done.stdout + done.stderr).strip()[-500:]}")
        failures = json.loads(report.read_text(encoding="utf-8"))["failures"]
        entries = json.loads(requests.read_text(encoding="utf-8"))["log"]["entries"]
    statuses = Counter((f"OpenAPI {_route(one['request']['url'])}", str(one["response"]["status"])) for one in entries)
    told = [f"{one['code']} {one['title']}: {one['count']} at {', '.join(one['operations'])}" for one in failures]
    return statuses, told


def _route(url: str) -> str:
    """A path without what stands for a name."""
    parts = urlsplit(url).path.split("/")
    if parts[1:3] == ["v2", "models"]:
        known = ("versions", "ready", "infer")
        parts[3:] = [part if part in known and place else "…" for place, part in enumerate(parts[3:])]
    return "/".join(parts)
