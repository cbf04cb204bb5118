"""Dagster's UI as a user starts it, on a lake and an instance of its own: `dagster dev`, its GraphQL, its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_assets.environment import PROJECT, default_dagster_home

BIN = Path(sys.executable).parent
_LOCATIONS = """
query { workspaceOrError { __typename ... on Workspace { locationEntries {
  loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }
"""
_BACKFILL = """
mutation ($selector: [AssetKeyInput!]!, $partitions: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $selector, partitionNames: $partitions}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
_BACKFILL_STATUS = (
    "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
)

_NODE = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
  ... on AssetNode { jobNames repository { name location { name } } } } }
"""
_LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
_RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@dataclass(frozen=True)
class Ui:
    """A running UI. lake, home: its folders; environment: that commands beside it need."""

    url: str
    lake: Path
    home: Path
    environment: Mapping[str, str]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Data of a GraphQL query, as the page asks for them."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def materialize(self, asset: str, timeout: float = 600) -> str:
        """Materialize an asset without partitions, as the UI's button does, and wait for its end; its status."""
        key = {"path": asset.split("/")}
        node = self.ask(_NODE, key=key)["assetNodeOrError"]
        selector = {
            "pipelineName": next(name for name in node["jobNames"] if name.startswith("__ASSET_JOB")),
            "repositoryName": node["repository"]["name"],
            "repositoryLocationName": node["repository"]["location"]["name"],
            "assetSelection": [key],
        }
        launched = self.ask(_LAUNCH, params={"selector": selector, "runConfigData": {}, "mode": "default"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched

        def ended() -> str:
            status = self.ask(_RUN, id=launched["run"]["runId"])["runOrError"]["status"]
            return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""

        return wait_for(ended, timeout, f"the run of {asset}")

    def backfill(self, asset: str, partitions: Sequence[str], timeout: float = 600) -> str:
        """Launch a backfill of an asset, as the UI's button does, and wait for its end; its status."""
        selector = [{"path": asset.split("/")}]
        launched = self.ask(_BACKFILL, selector=selector, partitions=list(partitions))["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def ended() -> str:
            status = self.ask(_BACKFILL_STATUS, id=launched["backfillId"])["partitionBackfillOrError"]["status"]
            return "" if status in ("REQUESTED", "CANCELING") else status

        return wait_for(ended, timeout, f"the backfill of {asset}")


def wait_for(look: Callable[[], Any], timeout: float, what: str) -> Any:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {timeout:.0f} s")


def own_environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment with a lake and an instance below a folder; the instance is the project's own kind."""
    home = folder / "home"
    home.mkdir()
    shutil.copy(default_dagster_home() / "dagster.yaml", home)
    return {**os.environ, "DAGSTER_HOME": str(home), "OV_LAKE": str(folder / "lake"), **more}


@contextmanager
def dagster_dev(folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Ui]:
    """`dagster dev` on a free port, until the block ends; all its processes end with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(BIN / "dagster"), "dev", "-h", "127.0.0.1", "-p", str(port), *arguments]
    log = folder / "dagster_dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ui = Ui(f"http://127.0.0.1:{port}", folder / "lake", folder / "home", environment)
    try:
        wait_for(lambda: _loaded(ui, process, log), 240, "dagster dev")
        yield ui
    finally:
        _end(process)


def _loaded(ui: Ui, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the code location is loaded; an AssertionError where that failed."""
    assert process.poll() is None, log.read_text()[-4000:]
    try:
        entries = ui.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]
    except (urllib.error.URLError, OSError):
        return False
    for entry in entries:
        assert (entry["locationOrLoadError"] or {}).get("__typename") != "PythonError", entry
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session: webserver, daemon, code server and the runs that they started."""
    for number, patience in ((signal.SIGINT, 30), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
