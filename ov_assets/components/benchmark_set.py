"""The set of benchmarks that a project prepares, as the assets that build on it see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dagster as dg

BENCHMARK_VIDEOS, BENCHMARK_ASSETS = "benchmark_videos", "benchmark_assets"


@dataclass(frozen=True)
class BenchmarkSet:
    """Benchmarks by short name, prepared below a home.

    Args:
        name: of the component's folder. home: lmms-eval's HF_HOME.
        checks: asset -> names of its blocking checks.
    """

    name: str
    names: tuple[str, ...]
    home: Path
    checks: Mapping[str, tuple[str, ...]]

    @cached_property
    def partitions(self) -> dg.StaticPartitionsDefinition:
        """A partition per benchmark."""
        return dg.StaticPartitionsDefinition(list(self.names))

    @property
    def videos(self) -> dg.AssetKey:
        """The prepared videos and questions."""
        return dg.AssetKey([self.name, BENCHMARK_VIDEOS])

    @property
    def assets(self) -> dg.AssetKey:
        """The codec assets of the videos."""
        return dg.AssetKey([self.name, BENCHMARK_ASSETS])

    @property
    def blocking(self) -> dict[dg.AssetCheckKey, bool]:
        """Blocking checks of both assets; all are partitioned."""
        return {
            dg.AssetCheckKey(dg.AssetKey([self.name, asset]), check): True
            for asset, checks in self.checks.items()
            for check in checks
        }
