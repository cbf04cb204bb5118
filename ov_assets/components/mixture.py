"""`Mixture`: the training JSONLs of several datasets joined into one, by weight or by count."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import dagster as dg

from ov_assets.checks import MIXTURE_CHECKS, check_mixture
from ov_assets.components.lookup import find_lane
from ov_assets.components.stages import TRAINING_ROW
from ov_assets.environment import lake_root
from ov_assets.executor import engine
from ov_assets.guards import check_result, check_spec
from ov_assets.inputs import described
from ov_assets.metadata import mixture_metadata
from ov_assets.needs import Need
from ov_assets.versions import describe_change, last_data_version
from ov_model.errors import OvError
from ov_model.lake.mixture import MixtureSource, MixtureSpec, mix

_TEXT = "Rows of several datasets in one training JSONL: of each as many as its weight or count says, by a seed."


class MixtureDataset(dg.Model, dg.Resolvable):
    """A dataset's share: `count` rows, else `weight` (passes through it; with `size`, its proportion)."""

    dataset: str
    weight: float = 1.0
    count: int | None = None


class Mixture(dg.Component, dg.Model, dg.Resolvable):
    """Datasets of this lake joined into one training JSONL, drawn the same for the same seed."""

    datasets: Sequence[MixtureDataset]
    seed: int = 0
    size: int | None = None
    shuffle: bool = True
    paths: Literal["absolute", "relative"] = "absolute"
    description: str = ""
    owners: Sequence[str] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        name = context.path.name
        lanes = {entry.dataset: find_lane(context, f"mixture {name}", entry.dataset) for entry in self.datasets}
        jsonls = {dataset: lane.dataset.root / "train.jsonl" for dataset, lane in lanes.items()}
        return self.definitions(name, jsonls)

    def spec(self, name: str, jsonls: dict[str, Path]) -> MixtureSpec:
        """What the library is asked for; `jsonls`: the merged JSONL of each dataset."""
        return MixtureSpec(
            name=name,
            out=lake_root() / name / "mixture.jsonl",
            sources=tuple(
                MixtureSource(entry.dataset, jsonls[entry.dataset], entry.weight, entry.count)
                for entry in self.datasets
            ),
            seed=self.seed,
            size=self.size,
            shuffle=self.shuffle,
            paths=self.paths,
        )

    def definitions(self, name: str, jsonls: dict[str, Path]) -> dg.Definitions:
        """The asset `<name>/mixture`."""
        spec = self.spec(name, jsonls)
        key = dg.AssetKey([name, "mixture"])
        deps = [dg.AssetKey([dataset, "train_jsonl"]) for dataset in jsonls]

        @dg.multi_asset(
            name=f"{name}__mixture",
            specs=[
                dg.AssetSpec(
                    key,
                    deps=deps,
                    description=described(_TEXT, deps, self.description),
                    group_name=name,
                    kinds={"json"},
                    owners=self.owners,
                    code_version=spec.config_hash[:16],
                    metadata={"dagster/column_schema": TRAINING_ROW},
                    skippable=True,
                )
            ],
            check_specs=[check_spec(key, check_name, text) for check_name, text in MIXTURE_CHECKS.items()],
            can_subset=True,
            op_tags=Need().op_tags,
            retry_policy=engine().retry,
        )
        def mixture(
            context: dg.AssetExecutionContext,
        ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
            report = None
            if context.selected_asset_keys:
                try:
                    report = mix(spec)
                except OvError as error:
                    raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
                context.log.info(f"{name}: {report.rows} rows, {'as before' if report.reused else 'written'}")
            wanted = {check.name for check in context.selected_asset_check_keys}
            results = [
                check_result(finding, key, check_name)
                for check_name, finding in check_mixture(spec).items()
                if check_name in wanted
            ]
            if report is None:
                yield from results
            else:
                version = report.data_version[:16]
                change = describe_change(last_data_version(context.instance, key, None), version)
                yield dg.MaterializeResult(
                    asset_key=key,
                    data_version=dg.DataVersion(version),
                    metadata=mixture_metadata(report, change),
                    check_results=results,
                )

        return dg.Definitions(assets=[mixture])
