"""The benchmarks as data: adding one is adding one entry. Sources: REFERENCE.md section 8, lmms-eval's task files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ov_model.errors import UsageError


@dataclass(frozen=True)
class Published:
    """Published scores in percent, of mosaics (codec) and of plain frames, and where they stand."""

    codec: float
    frames: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Args:
        task: lmms-eval's task or group. tasks_path: folder of its YAML, below lmms_eval/tasks or absolute.
        cache_dir: where lmms-eval looks for the videos, relative to HF_HOME.
        metric: lmms-eval's key of the headline metric.
    """

    name: str
    task: str
    tasks_path: str
    cache_dir: str
    metric: str
    repo: str = ""
    former_repos: tuple[str, ...] = ()
    revision: str = "main"
    split: str = "test"
    gated: bool = False
    license: str = ""
    published: Published | None = None
    num_samples: int | None = None


@dataclass(frozen=True)
class Places:
    """Where a benchmark's files lie below a home, which is lmms-eval's HF_HOME."""

    benchmark: Benchmark
    home: Path

    @property
    def videos(self) -> Path:
        """Folder that lmms-eval's task looks for videos in."""
        return self.home / self.benchmark.cache_dir

    @property
    def offline(self) -> Path:
        """`<task>_offline`."""
        return self.home / f"{self.benchmark.task}_offline"

    @property
    def videos_jsonl(self) -> Path:
        """`<task>_videos.jsonl`: the videos that the benchmark's questions are about."""
        return self.offline / f"{self.benchmark.task}_videos.jsonl"

    @property
    def assets(self) -> Path:
        """Root of the codec assets."""
        return self.offline / "assets"

    @property
    def dataset(self) -> Path:
        """The hub's data files, as lmms-eval's `dataset_path`."""
        return self.offline / "dataset"

    @property
    def archives(self) -> Path:
        """Downloaded archives."""
        return self.offline / "archives"

    @property
    def state(self) -> Path:
        """What was downloaded and extracted."""
        return self.offline / "prepared.json"


BENCHMARKS: dict[str, Benchmark] = {}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its short or its lmms-eval name.

    Raises:
        UsageError: there is none of that name.
    """
    for benchmark in BENCHMARKS.values():
        if name in (benchmark.name, benchmark.task):
            return benchmark
    raise UsageError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
