"""What stages 1 and 2 have in common as commands: which records, from where, and how the work is done."""

# Annotations are evaluated here, not by name in the modules of the subclasses.
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ov_model.lake.layout import Shard
from ov_model.lake.media import MediaPolicy
from ov_model.lake.scratch import DEFAULT_GB, Scratch, default_scratch
from ov_model.lake.urls import Location, location, need_path
from ov_model.lake.workers import RunOptions


def _one(_: Any, tokens: Sequence[Any]) -> Location:
    return location(tokens[0].value)


def _several(_: Any, tokens: Sequence[Any]) -> tuple[Location, ...]:
    return tuple(location(token.value) for token in tokens)


Place = Parameter(converter=_one, accepts_keys=False, n_tokens=1)
Places = Parameter(converter=_several, accepts_keys=False, n_tokens=1, show_default=False)


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
    media_root: Annotated[Location | None, Place] = None
    """Folder or URL that relative media paths start from; nothing outside it is read."""
    allowed_roots: Annotated[tuple[Location, ...], Places] = ()
    """Folders and URLs that media may lie in."""
    retry_failed: bool = False
    """Take only the samples that failed before."""
    overwrite: bool = False
    """Do every sample again."""
    timeout: float | None = None
    """Seconds a sample may take [default: 60 + 4 x its estimated decode time]."""
    memory_gb: float = RunOptions.memory_gb
    """Memory a worker may take, GiB."""
    scratch: Annotated[Path | None, Parameter(env_var="OV_SCRATCH")] = None
    """Folder for copies of files behind URLs [default: one below the system's for temporary files]."""
    scratch_gb: float = DEFAULT_GB
    """Size that it may grow to, GB."""

    @property
    def shard(self) -> Shard:
        """The part to do."""
        return Shard(self.shard_id, self.num_shards)

    @property
    def local_media_root(self) -> Path | None:
        """Where relative media paths start from, for what takes no URL there."""
        return None if self.media_root is None else need_path(self.media_root, "--media_root")

    @property
    def copies(self) -> Scratch:
        """Where copies of files behind URLs go."""
        return Scratch(self.scratch or default_scratch(), self.scratch_gb)

    def media_policy(self, dataset_path: Location) -> MediaPolicy:
        """Where media are looked for."""
        return MediaPolicy(dataset_path, self.media_root, self.allowed_roots, self.copies)

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
