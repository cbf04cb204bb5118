"""What is trained, on what, and how: typed YAML.

    recipe = load_recipe("sft")                 # a shipped one, or a path
    recipe = load_recipe("my.yaml", ["optim.learning_rate=2e-5"])

Two stages (REFERENCE.md section 11): "projector" trains the projector alone, "full" every part with a learning rate.
A field that is left out has the default below; a field that does not exist is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from ov_model.errors import UsageError
from ov_model.extras import require
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_json

require("train", "pydantic", "yaml")

import yaml  # noqa: E402
from pydantic import ConfigDict, TypeAdapter, ValidationError  # noqa: E402

STAGE_VERSION = 1
SHIPPED = ("tiny", "pretrain", "sft")
PART_RATES = {"vision_tower": "vision_tower_lr", "projector": "projector_lr", "language_model": "language_model_lr"}
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ModelRecipe:
    """Where the parts come from. A part with a `*_config` instead of weights starts at random.

    Args:
        checkpoint: a whole vision-language model to start from; overrides the two towers.
        language_model, vision_tower: folder or hub id of weights.
        language_config, vision_config: configuration of a random part (`model_type` names the language model's class).
        vision_tower_type: which encoder; others register themselves in `ov_model.train.build.VISION_TOWERS`.
        projector: `mm_projector.bin`, or a folder that holds one; None means random.
        tokenizer: folder or hub id; None means the language model's own, "train" one trained on the data.
        tokenizer_vocab: entries of a tokenizer that is trained.
        attention: attention kernel; None takes the best that the machine has.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    checkpoint: str | None = None
    language_model: str | None = None
    language_config: dict[str, Any] | None = None
    vision_tower: str | None = None
    vision_config: dict[str, Any] | None = None
    vision_tower_type: str = "onevision_encoder"
    projector: str | None = None
    projector_type: str = "mlp2x_gelu"
    select_layer: int = -2
    tokenizer: str | None = None
    tokenizer_vocab: int = 512
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None


@dataclass(frozen=True)
class DataRecipe:
    """How a row of the mixture becomes a sample.

    Args:
        max_length: longest text + visual tokens; longer samples are cut, never inside a visual block.
        on_bad_sample: "raise" names the sample and stops; "skip" goes on and counts it (metrics, skipped.jsonl).
        group_by_length: batches of samples of like length (text + visual tokens).
        workers: decoding processes of each rank.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    geometry: Geometry = field(default_factory=Geometry)
    template: Literal["chatml", "plain"] = "chatml"
    max_length: int = 8192
    image_aspect_ratio: Literal["anyres", "pad", "plain"] = "anyres"
    image_folder: str | None = None
    on_bad_sample: Literal["raise", "skip"] = "raise"
    group_by_length: bool = True
    workers: int = 4


@dataclass(frozen=True)
class OptimRecipe:
    """Steps and learning rates; samples a step = batch_size * accumulation * processes.

    Args:
        learning_rate: of every trained part without a rate of its own; 0 there freezes the part.
        batch_size: samples a process and forward pass.
        max_steps: ends before `epochs` do, where given.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    learning_rate: float = 1e-5
    vision_tower_lr: float | None = None
    projector_lr: float | None = None
    language_model_lr: float | None = None
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 1
    accumulation: int = 1


@dataclass(frozen=True)
class RunRecipe:
    """Precision, sharding, checkpoints. Only `precision` and `zero` can change what is learned, by rounding.

    Args:
        precision: "auto" is bf16 on an accelerator that has it, else float32.
        zero: DeepSpeed's ZeRO stage; 0 trains without DeepSpeed.
        save_every: steps between checkpoints; keep: how many stay.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    precision: Literal["auto", "bf16", "float32"] = "auto"
    zero: Literal[0, 2, 3] = 3
    gradient_checkpointing: bool = False
    save_every: int = 500
    keep: int = 20
    log_every: int = 1


@dataclass(frozen=True)
class Recipe:
    """A training run, complete but for its data, its output folder and the number of processes.

    Raises:
        UsageError: `validate` found values that cannot be honored.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    stage: Literal["projector", "full"]
    seed: int = 0
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)

    def __post_init__(self) -> None:
        model, optim = self.model, self.optim
        if model.checkpoint is None:
            for part in ("language_model", "vision_tower"):
                config = "language_config" if part == "language_model" else "vision_config"
                given = [name for name in (part, config) if getattr(model, name) is not None]
                if len(given) != 1:
                    found = " and ".join(given) or "neither"
                    raise UsageError(f"recipe {self.name}: model: {found} given; give {part} or {config}")
            if model.tokenizer is None and model.language_model is None:
                raise UsageError(f"recipe {self.name}: model.tokenizer: a random language model needs one, or 'train'")
        for name in ("batch_size", "accumulation"):
            if getattr(optim, name) < 1:
                raise UsageError(f"recipe {self.name}: optim.{name} is {getattr(optim, name)}; it must be 1 or more")
        if self.run.save_every < 1 or self.run.keep < 1 or self.run.log_every < 1:
            raise UsageError(f"recipe {self.name}: run.save_every, run.keep and run.log_every must be 1 or more")
        if not any(self.rates.values()):
            raise UsageError(f"recipe {self.name}: every learning rate is 0; nothing would be trained")

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate of each part of the model; 0 where it is frozen."""
        rates = {}
        for part, name in PART_RATES.items():
            own = getattr(self.optim, name)
            rate = self.optim.learning_rate if own is None else own
            rates[part] = rate if self.stage == "full" or part == "projector" else 0.0
        return rates

    @cached_property
    def config_hash(self) -> str:
        """Hash of everything that decides what is learned: not of how often it is logged or saved, nor the loaders."""
        values = self.to_dict()
        for name in ("save_every", "keep", "log_every"):
            del values["run"][name]
        del values["data"]["workers"]
        return hash_json(values | {"stage_version": STAGE_VERSION})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        values = asdict(self)
        values["optim"]["betas"] = list(self.optim.betas)
        return values


_ADAPTER = TypeAdapter(Recipe)


def parse_recipe(values: Any, source: str) -> Recipe:
    """A recipe from plain values.

    Raises:
        UsageError: names the source and every field that is unknown, missing or of the wrong type.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UsageError(f"{source}: {faults}") from None


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file, or one of the shipped ones by name; `overrides` are "optim.max_steps=10".

    Raises:
        UsageError: no such file, no YAML, or values that do not fit.
    """
    text = _read(source)
    try:
        values = yaml.safe_load(text)
        for override in overrides:
            _override(values, override, str(source))
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {error}") from None
    return parse_recipe(values, str(source))


def dump_recipe(recipe: Recipe) -> str:
    """YAML that `load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)


def _read(source: str | Path) -> str:
    if str(source) in SHIPPED:
        return files("ov_model.train").joinpath("recipes").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"recipe {source}: no such file; give a YAML file or one of {', '.join(SHIPPED)}")
    return path.read_text(encoding="utf-8")


def _override(values: Any, override: str, source: str) -> None:
    path, equals, text = override.partition("=")
    *sections, name = path.strip().split(".")
    if not equals or not isinstance(values, dict):
        raise UsageError(f"{source}: --set {override}: expected SECTION.FIELD=VALUE")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"{source}: --set {override}: {section} has no fields")
    values[name] = yaml.safe_load(text)
