"""How long people wait for Dagster: until the UI can be used, and from a click to the end of a shard that is cached.

    python benchmarks/start.py        # a lake and an instance of its own, removed at the end

Printed: `import dagster` in a new process; `make ui` until its page is served and the graph is there (goal 45 s); from
the launch of a finished shard's four assets, as the UI's Materialize does it, to success (goal 30 s). Each also as a
multiple of the import, which is what another machine, or this one under load, can be held to.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ov_assets.environment import PROJECT, default_dagster_home
from ov_model.demo import write_raw_dataset
from tests.services.graphql import ENDED, Dagster, wait

LANE = ("demo/raw_videos", "demo/visidx", "demo/mosaics", "demo/training_jsonl")
SHARD = "shard00of02"
GRAPH = "{ assetNodes { id } }"
RUNS = 3


def import_dagster() -> float:
    """Seconds of a new process that only imports Dagster, compiled files on disk: the least of several."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dagster"], check=True)
        return time.perf_counter() - start

    return min(once() for _ in range(RUNS))


@contextmanager
def ui(folder: Path) -> Iterator[tuple[Dagster, float]]:
    """`make ui` on an instance and a lake of its own; its server, and seconds until page and graph were there."""
    shutil.copy(default_dagster_home() / "dagster.yaml", folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "OV_LAKE": str(folder / "lake")}
    command = ["make", "--silent", "ui", f"PORT={port}", f"DAGSTER_HOME={folder}"]
    start = time.perf_counter()
    with (folder / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        dagster = Dagster(f"http://127.0.0.1:{port}")
        wait("the page", lambda: dagster.get()[0] == 200, every=0.1)
        wait("the graph", lambda: dagster.query(GRAPH)["assetNodes"], every=0.1)
        yield dagster, time.perf_counter() - start
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def materialize(dagster: Dagster, *assets: str, partition: str | None = None) -> float:
    """Seconds from the launch of a run to its success.

    Raises:
        SystemExit: the run failed.
    """
    start = time.perf_counter()
    run = dagster.launch(*assets, partition=partition)

    def ended() -> str | None:
        status = dagster.status(run)
        return status if status in ENDED else None

    if (status := wait("the run", ended, 600, every=0.1)) != "SUCCESS":
        raise SystemExit(f"{', '.join(assets)}: {status}")
    return time.perf_counter() - start


def main() -> None:
    """Print every figure."""
    unit = import_dagster()

    def show(what: str, seconds: float, goal: str = "") -> None:
        print(f"{what:<58}{seconds:>7.1f} s{seconds / unit:>7.1f} x   {goal}")

    show("import dagster", unit)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_raw_dataset(folder / "lake" / "raw" / "demo")
        with ui(folder) as (dagster, seconds):
            show("make ui: page and graph", seconds, "(goal 45 s)")
            materialize(dagster, "demo/records")
            show("a shard's four assets, the first time", materialize(dagster, *LANE, partition=SHARD))
            again = min(materialize(dagster, *LANE, partition=SHARD) for _ in range(RUNS))
            show("the same again, cached: click to success", again, "(goal 30 s)")
            one = min(materialize(dagster, "demo/visidx", partition=SHARD) for _ in range(RUNS))
            show("one of them, cached: click to success", one, "(goal 30 s)")


if __name__ == "__main__":
    main()
