"""The assets of a training run: token lengths, projector, checkpoint, each a step of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from ov_assets.checks import Finding
from ov_assets.evaluation import Source
from ov_assets.executor import engine
from ov_assets.guards import check_result, check_spec, refuse_after_failed_checks
from ov_assets.inputs import described
from ov_assets.jobs import as_failure
from ov_assets.needs import Need
from ov_assets.training import PROJECTOR_FILE, Made, Stage, Trainer, TrainingData, check_export, measure
from ov_assets.versions import describe_change, last_data_version
from ov_model.errors import OvError
from ov_model.lake.files import hash_json
from ov_model.train.recipe import Recipe

TOKEN_LENGTHS, PROJECTOR, CHECKPOINT = "token_lengths", "projector", "checkpoint"
_LENGTHS_VERSION = 1
_EXPORT_CHECK = "export_complete"
_TEXTS = {
    TOKEN_LENGTHS: "How long the samples are in text and visual tokens, and what the recipe's max_length would cut.",
    PROJECTOR: "The projector between vision tower and language model, trained alone (stage 1).",
    CHECKPOINT: "The whole model trained from that projector (stage 2); `export/` is what `from_pretrained` loads.",
}
_KINDS = {TOKEN_LENGTHS: {"png"}, PROJECTOR: {"pytorch"}, CHECKPOINT: {"pytorch", "safetensors"}}
StepEvent = dg.MaterializeResult | dg.AssetCheckResult


@dataclass(frozen=True)
class RunAssets:
    """The three assets of a training run."""

    name: str
    data: TrainingData
    trainer: Trainer
    projector: Stage
    checkpoint: Stage
    lengths_home: Path
    pool: str | None
    retry: dg.RetryPolicy
    need: Need = field(default_factory=Need)
    description: str = ""
    owners: Sequence[str] = field(default_factory=tuple)

    def definitions(self) -> dg.Definitions:
        """A step per asset: the two trainings wait for the pool and are tried again."""
        recipe = self.checkpoint.recipe
        lengths_version = hash_json(
            [_LENGTHS_VERSION, *(recipe.to_dict()["data"] | {"workers": 0}).items(), *_tokenizer(recipe)]
        )
        lengths = self._step(TOKEN_LENGTHS, lengths_version[:16], self.data.deps, self._measure)
        projector = self._step(PROJECTOR, self.projector.code_version, self.data.deps, self._projector, self.projector)
        deps = [*self.data.deps, self.projector.asset]
        checkpoint = self._step(CHECKPOINT, self.checkpoint.code_version, deps, self._checkpoint, self.checkpoint)
        return dg.Definitions(assets=[lengths, projector, checkpoint])

    @property
    def source(self) -> Source:
        """The checkpoint as something to score."""
        asset = self.checkpoint.asset
        return Source(self.name, asset, (_EXPORT_CHECK,), lambda: (str(self.checkpoint.export()), None))

    def _measure(self, context: dg.AssetExecutionContext) -> Made:
        return measure(context, self.data, self.trainer, self.checkpoint.recipe, self.lengths_home)

    def _projector(self, context: dg.AssetExecutionContext) -> Made:
        return self.projector.train(context, self.data, self.trainer, None)

    def _checkpoint(self, context: dg.AssetExecutionContext) -> Made:
        start = self.projector.export() / PROJECTOR_FILE
        return self.checkpoint.train(context, self.data, self.trainer, start)

    def _step(
        self,
        name: str,
        code_version: str,
        deps: Sequence[dg.AssetKey],
        make: Callable[[dg.AssetExecutionContext], Made],
        stage: Stage | None = None,
    ) -> dg.AssetsDefinition:
        key = dg.AssetKey([self.name, name])
        spec = dg.AssetSpec(
            key,
            deps=deps,
            description=described(_TEXTS[name], deps, self.description),
            group_name=self.name,
            kinds=_KINDS[name],
            owners=self.owners,
            code_version=code_version,
            skippable=True,
        )
        checks: Mapping[str, Callable[[], Finding]] = {}
        if stage is not None:
            checks = {_EXPORT_CHECK: lambda: check_export(stage)}

        @dg.multi_asset(
            name=f"{self.name}__{name}",
            specs=[spec],
            check_specs=[
                check_spec(key, check, "The export has all its files, and every loss is a number.") for check in checks
            ],
            can_subset=True,
            pool=None if stage is None else self.pool,
            op_tags=(Need() if stage is None else self.need).op_tags,
            retry_policy=engine().retry if stage is None else self.retry,
        )
        def step(context: dg.AssetExecutionContext) -> Iterator[StepEvent]:
            made = None
            try:
                if context.selected_asset_keys:
                    self._refuse(context.instance, name)
                    made = make(context)
                wanted = {check.name for check in context.selected_asset_check_keys}
                results = [check_result(find(), key, check) for check, find in checks.items() if check in wanted]
            except OvError as error:
                raise as_failure(error) from error
            if made is None:
                yield from results
                return
            change = describe_change(last_data_version(context.instance, key, None), made.data_version)
            context.log.info(f"{key.to_user_string()}: {made.metadata['work']}; {change}")
            yield dg.MaterializeResult(
                asset_key=key,
                data_version=dg.DataVersion(made.data_version),
                metadata=made.metadata | {"change": change},
                check_results=results,
            )

        return step

    def _refuse(self, instance: dg.DagsterInstance, name: str) -> None:
        """Raise UpstreamError where a blocking check of what this asset builds on failed the last time."""
        keys = [dg.AssetCheckKey(self.data.asset, check) for check in self.data.checks]
        if name == CHECKPOINT:
            keys.append(dg.AssetCheckKey(self.projector.asset, _EXPORT_CHECK))
        refuse_after_failed_checks(instance, keys, None)


def _tokenizer(recipe: Recipe) -> list[Any]:
    """The fields of a recipe that decide its tokenizer."""
    model = recipe.model
    return [model.tokenizer, model.tokenizer_vocab, model.checkpoint, model.language_model]
