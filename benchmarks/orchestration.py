"""What Dagster costs on a shard of 200 short clips: its run against the same call of the library.

python benchmarks/orchestration.py [--clips 200] [--runs 3] [--command]

Both decode and pack every clip into a new lake, two workers each. `in process` materializes visidx and mosaics with
all their checks in the process that asked for it; `--command` is `dagster asset materialize`, a process that loads all
definitions and starts another for the step: some seconds more, whatever the shard.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg

from ov_assets.components import VideoDataset
from ov_assets.components.lane import Lane
from tests.factories import make_records, make_video, write_dataset

SIDE, FRAMES = (160, 96), 24
CLIPS = 200
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
_LOCATION = """
from pathlib import Path
import dagster as dg
from benchmarks.orchestration import lane_of
from ov_assets.executor import engine

EXECUTOR = dg.Definitions(executor=engine().definition())
defs = dg.Definitions.merge(lane_of(Path({raw!r}), Path({root!r})).definitions(), EXECUTOR)
"""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of all processors, children included."""

    wall: float
    cpu: float


def lane_of(raw: Path, root: Path) -> Lane:
    """A dataset of one shard in the published geometry."""
    attributes = {"dataset_path": str(raw / "raw.json"), "media_root": str(raw), "root": str(root), "num_shards": 1}
    return VideoDataset.from_attributes_dict(attributes=attributes).lane("clips", raw)


def cost(work: Callable[[], object]) -> Cost:
    """What one call takes."""
    start, before = time.perf_counter(), _cpu()
    work()
    return Cost(time.perf_counter() - start, _cpu() - before)


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def prepared(raw: Path, root: Path) -> Lane:
    """A lane whose records and raw_videos are there."""
    lane = lane_of(raw, root)
    lane.dataset.index_records()
    lane.dataset.raw_videos(lane.dataset.shards[0])
    return lane


def library(lane: Lane) -> None:
    """The call that the step makes."""
    _, mosaics = lane.dataset.visidx_and_mosaics(lane.dataset.shards[0])
    assert mosaics.failed == 0


def in_process(lane: Lane, instance: dg.DagsterInstance) -> None:
    """The run of visidx and mosaics, checks included, in this process."""
    result = dg.materialize(
        list(lane.definitions().assets or []),  # pyright: ignore[reportArgumentType]
        instance=instance,
        selection=[lane.key("visidx"), lane.key("mosaics")],
        partition_key=lane.dataset.shards[0].key,
        run_config=_QUIET,
    )
    assert result.success


def command(lane: Lane, raw: Path, home: Path) -> None:
    """The same from the command line."""
    location = home / "location.py"
    location.write_text(_LOCATION.format(raw=str(raw), root=str(lane.dataset.root)))
    project = Path(__file__).resolve().parents[1]
    subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-f", str(location),
         "--select", 'key:"clips/visidx" or key:"clips/mosaics"', "--partition", lane.dataset.shards[0].key],
        env={**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(project)}, check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Dagster's run of a shard against the library's call.")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--command", action="store_true", help="`dagster asset materialize` too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw, home = folder / "raw", folder / "home"
        raw.mkdir()
        home.mkdir()
        names = [f"clip{number:03d}.mp4" for number in range(options.clips)]
        for number, clip in enumerate(names):
            make_video(raw / clip, width=SIDE[0], height=SIDE[1], frames=FRAMES, seed=number)
        write_dataset(raw / "raw.json", make_records(names))
        kinds: dict[str, list[Cost]] = {"library": [], "in process": [], "command": []}
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            library(prepared(raw, folder / "warm"))
            for run in range(options.runs):
                for kind, costs in kinds.items():
                    if kind == "command" and not options.command:
                        continue
                    lane = prepared(raw, folder / f"lake {run} {kind}")
                    work = {
                        "library": partial(library, lane),
                        "in process": partial(in_process, lane, instance),
                        "command": partial(command, lane, raw, home),
                    }
                    costs.append(cost(work[kind]))
    base = kinds["library"]
    for kind, costs in kinds.items():
        if costs:
            wall = statistics.median(c.wall / b.wall for c, b in zip(costs, base, strict=True))
            cpu = statistics.median(c.cpu / b.cpu for c, b in zip(costs, base, strict=True))
            least = min(costs, key=lambda found: found.cpu)
            print(
                f"{kind:11}{options.clips} clips: {least.wall:6.2f} s, {least.cpu:6.2f} s of CPU; "
                f"{wall:.3f} x and {cpu:.3f} x the library" + ("   (goal 1.10)" if kind == "in process" else "")
            )


if __name__ == "__main__":
    main()
