"""`Benchmarks`: videos, questions and codec assets of each benchmark, the leaderboard, and what keeps scores fresh."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from ov_assets.benchmarks import Preparation
from ov_assets.checks import Finding
from ov_assets.components.automation import benchmark_refresh, new_checkpoint
from ov_assets.components.benchmark_set import BENCHMARK_ASSETS, BENCHMARK_VIDEOS, BenchmarkSet
from ov_assets.components.leaderboard import leaderboard
from ov_assets.components.lookup import scored_runs
from ov_assets.components.step import StepAsset, StepCheck
from ov_assets.environment import lake_root
from ov_assets.inputs import described
from ov_assets.metadata import Product
from ov_assets.needs import need_of_workers
from ov_model.errors import UsageError
from ov_model.eval.benchmarks import BENCHMARKS, find_benchmark
from ov_model.eval.prepare import PrepareOptions
from ov_model.lake.files import hash_json

VIDEOS_VERSION = 1
_VIDEOS = (
    "Each benchmark's questions and videos, downloaded at a pinned revision and extracted; gated ones need a token."
)
_ASSETS = "Mosaics and positions of every video of a benchmark, as its evaluation reads them."
_VIDEO_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("video", "str", "absolute path"),
        dg.TableColumn("key", "str", "name of the video's codec asset"),
        dg.TableColumn("task", "str", "lmms-eval's task that asks about it first"),
        dg.TableColumn("exists", "bool", "whether it was there"),
    ]
)
_ASSET_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("t", "int32", "index of the sampled frame, from 0"),
        dg.TableColumn("h", "int32", "grid row in the frame"),
        dg.TableColumn("w", "int32", "grid column in the frame"),
    ]
)


class Benchmarks(dg.Component, dg.Model, dg.Resolvable):
    """The benchmarks of this project, a partition each: `benchmark_videos`, `benchmark_assets`, `leaderboard`.

    `benchmarks`: short names or lmms-eval's; unset: the demo's and the eight. `keep_archives`: once unpacked.
    `missing_limit`: share of a benchmark's videos that may be missing; `failure_limit`: that may have no codec asset.
    `precompute`: options called as the flags of `ov precompute`; `overrides`: those that are other for one benchmark,
    `{demo: {num_images: 2}}`. `cron`: when the schedule `benchmark_refresh` scores
    the newest checkpoint on what is stale or missing (both it and the sensor `new_checkpoint` begin switched off).
    """

    benchmarks: Sequence[str] | None = None
    keep_archives: bool = True
    missing_limit: float = 0.0
    failure_limit: float = 0.05
    precompute: dict[str, Any] | None = None
    overrides: dict[str, dict[str, Any]] | None = None
    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    description: str = ""
    owners: Sequence[str] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return self.definitions(context.path.name, scored_runs(context))

    def benchmark_set(self, name: str) -> BenchmarkSet:
        """What assets that build on these benchmarks see.

        Raises:
            UsageError: an unknown benchmark, or none.
        """
        default = [benchmark.name for benchmark in BENCHMARKS.values() if benchmark.builder or not benchmark.extra]
        names = tuple(find_benchmark(given).name for given in (default if self.benchmarks is None else self.benchmarks))
        if not names or len(set(names)) < len(names):
            raise UsageError(f"{name}: benchmarks are {', '.join(names) or 'none'}; name at least one, each once")
        checks = {
            asset: tuple(check for check, value in made.items() if value.blocking)
            for asset, made in self._checks(self._preparation(name)).items()
        }
        return BenchmarkSet(name, names, lake_root() / name, checks)

    def definitions(self, name: str, runs: Sequence[str]) -> dg.Definitions:
        """The assets, the schedule and the sensor; `runs`: names of everything that has scores."""
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UsageError(f"benchmarks {name!r}: the folder's name may hold letters, digits and _ only; rename it")
        benchmarks = self.benchmark_set(name)
        assets = [step.definition() for step in self.steps(name)]
        board = leaderboard(benchmarks, runs, tuple(self.owners))
        return dg.Definitions(
            assets=[*assets, board.definition()],
            schedules=[benchmark_refresh(benchmarks, runs, self.cron, self.timezone)] if runs else [],
            sensors=[new_checkpoint(benchmarks, runs)] if runs else [],
        )

    def steps(self, name: str) -> tuple[StepAsset, StepAsset]:
        """The videos and the codec assets."""
        benchmarks, preparation = self.benchmark_set(name), self._preparation(name)
        checks = self._checks(preparation)
        registry = [repr(find_benchmark(benchmark)) for benchmark in benchmarks.names]
        videos = StepAsset(
            key=benchmarks.videos,
            description=described(_VIDEOS, [], self.description),
            deps=[],
            kinds=frozenset({"mp4"}),
            group=name,
            code_version=hash_json([VIDEOS_VERSION, registry])[:16],
            columns=_VIDEO_COLUMNS,
            make=_made(preparation.make_videos),
            there=preparation.videos_there,
            checks=checks[BENCHMARK_VIDEOS],
            partitions=benchmarks.partitions,
            owners=self.owners,
            pool="download",
        )
        assets = StepAsset(
            key=benchmarks.assets,
            description=described(_ASSETS, [benchmarks.videos], self.description),
            deps=[benchmarks.videos],
            kinds=frozenset({"jpeg", "numpy"}),
            group=name,
            code_version=preparation.assets_hash(benchmarks.names),
            columns=_ASSET_COLUMNS,
            make=_made(preparation.make_assets),
            there=preparation.assets_there,
            checks=checks[BENCHMARK_ASSETS],
            refuse={check: True for check in benchmarks.blocking if check.asset_key == benchmarks.videos},
            partitions=benchmarks.partitions,
            owners=self.owners,
            pool="decode",
            need=need_of_workers(preparation.run_options(benchmarks.names)),
        )
        return videos, assets

    def _preparation(self, name: str) -> Preparation:
        for limit in ("missing_limit", "failure_limit"):
            if not 0 <= getattr(self, limit) <= 1:
                raise UsageError(f"{name}: {limit} is {getattr(self, limit)}, expected a share between 0 and 1")
        options = PrepareOptions(archives="keep" if self.keep_archives else "delete")
        overrides = {find_benchmark(benchmark).name: given for benchmark, given in (self.overrides or {}).items()}
        home, limits = lake_root() / name, (self.missing_limit, self.failure_limit)
        return Preparation(home, options, self.precompute or {}, overrides, *limits)

    def _checks(self, preparation: Preparation) -> dict[str, dict[str, StepCheck]]:
        return {
            BENCHMARK_VIDEOS: {
                "videos_exist": StepCheck(
                    "The videos that the questions are about exist; missing_limit of them may not.",
                    _found(preparation.check_videos),
                ),
                "sample_count": StepCheck(
                    "There are as many questions as the registry says (a warning).",
                    _found(preparation.check_samples),
                    blocking=False,
                ),
            },
            BENCHMARK_ASSETS: {
                "failures_under_limit": StepCheck(
                    "The share of videos without a codec asset is within failure_limit.",
                    _found(preparation.check_failures),
                ),
                "assets_whole": StepCheck(
                    "Every asset's mosaics open to their end, and its positions are in order.",
                    _found(preparation.check_whole),
                ),
                "one_signal": StepCheck(
                    "All videos were scored by one signal (a warning).",
                    _found(preparation.check_signal),
                    blocking=False,
                ),
            },
        }


def _made(make: Callable[[str], Product]) -> Callable[[dg.AssetExecutionContext, str | None], Product]:
    return lambda context, benchmark: make(benchmark or "")


def _found(find: Callable[[str], Finding]) -> Callable[[str | None], Finding]:
    return lambda benchmark: find(benchmark or "")
