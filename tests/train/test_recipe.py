"""Recipes: typed, round trip, published values, errors that name the field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ov_model.errors import UsageError
from ov_model.train.recipe import SHIPPED, DataRecipe, RunRecipe, dump_recipe, load_recipe
from ov_model.train.zero import deepspeed_config


@pytest.mark.parametrize("name", SHIPPED)
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe
    assert load_recipe(path).config_hash == recipe.config_hash


def test_published_projector_stage() -> None:
    recipe = load_recipe("pretrain")
    assert recipe.rates == {"vision_tower": 0.0, "projector": 1e-3, "language_model": 0.0}
    assert (recipe.optim.batch_size, recipe.optim.accumulation, recipe.run.zero) == (16, 2, 2)
    assert (recipe.optim.schedule, recipe.optim.warmup_ratio, recipe.optim.epochs) == ("cosine", 0.03, 1)
    assert (recipe.data.template, recipe.data.max_length) == ("plain", 8192)


def test_published_full_stage() -> None:
    recipe = load_recipe("sft")
    assert recipe.rates == {"vision_tower": 2e-6, "projector": 1e-5, "language_model": 1e-5}
    assert (recipe.optim.batch_size, recipe.optim.accumulation, recipe.run.zero) == (1, 16, 3)
    assert (recipe.optim.schedule, recipe.optim.warmup_ratio, recipe.optim.weight_decay) == ("linear", 0, 0)
    assert (recipe.run.save_every, recipe.run.keep, recipe.run.gradient_checkpointing) == (500, 20, True)
    assert (recipe.data.template, recipe.data.max_length) == ("chatml", 321120)


def test_a_field_can_be_set_from_outside() -> None:
    recipe = load_recipe("sft", ["optim.learning_rate=2e-5", "model.projector=runs/a", "data.geometry.num_images=4"])
    assert recipe.optim.learning_rate == 2e-5
    assert recipe.model.projector == "runs/a"
    assert recipe.data.geometry.num_images == 4


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.learning_rat=1", "optim.learning_rat"),
        ("run.zero=1", "run.zero"),
        ("stage=both", "stage"),
        ("data.max_length=many", "data.max_length"),
        ("model.tokenizer=null", "model.tokenizer"),
        ("model.language_model=x", "language_model and language_config"),
        ("optim.batch_size=0", "optim.batch_size"),
        ("optim", "SECTION.FIELD=VALUE"),
    ],
)
def test_what_does_not_fit_is_named(override: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe("tiny", [override])


def test_a_recipe_that_trains_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would be trained"):
        load_recipe("pretrain", ["optim.projector_lr=0"])


def test_hash_ignores_only_what_cannot_change_the_result() -> None:
    recipe = load_recipe("tiny")
    assert replace(recipe, run=replace(recipe.run, save_every=7, keep=9)).config_hash == recipe.config_hash
    assert replace(recipe, data=replace(recipe.data, workers=3)).config_hash == recipe.config_hash
    assert replace(recipe, seed=1).config_hash != recipe.config_hash
    assert replace(recipe, data=DataRecipe(geometry=recipe.data.geometry)).config_hash != recipe.config_hash


@pytest.mark.parametrize("zero", [2, 3])
def test_deepspeed_configuration_follows_the_recipe(zero: int) -> None:
    recipe = replace(load_recipe("sft"), run=RunRecipe(zero=zero))  # type: ignore[arg-type]
    config = deepspeed_config(recipe, world=8, hidden_size=2560, bf16=True, cpu=False)
    assert config["gradient_clipping"] == 1.0
    assert config["train_batch_size"] == 1 * 16 * 8
    assert config["zero_optimization"]["stage"] == zero
    assert config["bf16"]["enabled"]
    assert config["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save", False) == (zero == 3)
