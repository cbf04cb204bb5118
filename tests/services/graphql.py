"""Dagster's GraphQL as a browser speaks it: over HTTP, with a name and a password where there is a proxy."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ASSET_JOB = "__ASSET_JOB"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "ov_assets"}
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on UnauthorizedError { message } ... on PipelineNotFoundError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_RUNS = """query($filter: RunsFilter) { runsOrError(filter: $filter) { __typename ... on Runs {
    results { runId status parentRunId tags { key value } } } } }"""


@dataclass(frozen=True)
class Dagster:
    """A Dagster web server, perhaps behind a proxy."""

    url: str
    user: str = ""
    password: str = ""

    def get(self, path: str = "/", **headers: str) -> tuple[int, str]:
        """Status and body of a page."""
        return self._send(urllib.request.Request(self.url + path, headers={**self.login(), **headers}))

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """The data that a query answers; AssertionError where it answers anything else."""
        body = json.dumps({"query": text, "variables": variables}).encode()
        headers = {"Content-Type": "application/json", **self.login()}
        status, answer = self._send(urllib.request.Request(f"{self.url}/graphql", body, headers))
        assert status == 200, f"{status}: {answer[:500]}"
        found = json.loads(answer)
        assert not found.get("errors"), found["errors"]
        return found["data"]

    def launch(self, *assets: str, partition: str | None = None) -> str:
        """Put a run of assets (`demo/visidx`) into the queue, as the UI's Materialize does; its id."""
        selector = {**REPOSITORY, "pipelineName": ASSET_JOB, "assetSelection": [_path(asset) for asset in assets]}
        tags = [] if partition is None else [{"key": "dagster/partition", "value": partition}]
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        answer = self.query(_LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def backfill(self, *assets: str, partitions: list[str]) -> str:
        """Launch a backfill of partitioned assets; its id."""
        params = {"assetSelection": [_path(asset) for asset in assets], "partitionNames": partitions}
        answer = self.query(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return answer["backfillId"]

    def backfill_status(self, backfill: str) -> str:
        """For example `COMPLETED_SUCCESS`."""
        text = (
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
        )
        return self.query(text, id=backfill)["partitionBackfillOrError"]["status"]

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Runs, newest first: runId, status, parentRunId."""
        return self.query(_RUNS, filter=filters)["runsOrError"]["results"]

    def status(self, run: str) -> str:
        """A run's status, for example `STARTED`."""
        return self.runs(runIds=[run])[0]["status"]

    def login(self) -> dict[str, str]:
        """The header that a browser sends once somebody has logged in."""
        if not self.user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}

    @staticmethod
    def _send(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


def wait(what: str, ready: Callable[[], Any], seconds: float = 240, every: float = 0.25) -> Any:
    """The first true answer; errors of a connection count as not ready.

    Raises:
        TimeoutError: none within the time.
    """
    last: object = None
    for _ in _ticks(seconds, every):
        try:
            if last := ready():
                return last
        except (OSError, AssertionError) as error:
            last = error
    raise TimeoutError(f"{what}: not within {seconds:.0f} s; last answer: {last!r}")


def _ticks(seconds: float, every: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(every)


def _path(asset: str) -> dict[str, list[str]]:
    return {"path": asset.split("/")}
