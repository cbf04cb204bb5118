"""What stages 1 and 2 have in common as commands: which records, from where, and how the work is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ov_model.lake.layout import Shard
from ov_model.lake.media import MediaPolicy
from ov_model.lake.workers import RunOptions


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Options that decide which samples are done and how, but no output."""

    num_workers: int = RunOptions.num_workers
    """Worker processes."""
    max_samples: int = 0
    """Only the first so many records (0: all)."""
    num_shards: int = 1
    """Number of parts the dataset is split into, by hash of the sample."""
    shard_id: int = 0
    """Which part to do."""
    log_every: int = RunOptions.log_every
    """Samples between log lines."""
    maxtasks_per_child: int = RunOptions.maxtasks_per_child
    """Samples after which a worker process is replaced."""
    media_root: Path | None = None
    """Folder that relative media paths start from; nothing outside it is read."""
    allowed_roots: tuple[Path, ...] = ()
    """Folders that media may lie in."""
    retry_failed: bool = False
    """Take only the samples that failed before."""
    overwrite: bool = False
    """Do every sample again."""
    timeout: float | None = None
    """Seconds a sample may take [default: 60 + 4 x its estimated decode time]."""
    memory_gb: float = RunOptions.memory_gb
    """Memory a worker may take, GiB."""

    @property
    def shard(self) -> Shard:
        """The part to do."""
        return Shard(self.shard_id, self.num_shards)

    def media_policy(self, dataset_path: Path) -> MediaPolicy:
        """Where media are looked for."""
        return MediaPolicy(dataset_path, self.media_root, self.allowed_roots)

    def run_options(self) -> RunOptions:
        """The options that decide how the work is done."""
        return RunOptions(
            num_workers=self.num_workers,
            timeout=self.timeout,
            memory_gb=self.memory_gb,
            maxtasks_per_child=self.maxtasks_per_child,
            retry_failed=self.retry_failed,
            overwrite=self.overwrite,
            max_samples=self.max_samples,
            log_every=self.log_every,
        )
