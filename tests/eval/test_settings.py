"""Environment variables and arguments: each is honored, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_model.errors import UsageError
from ov_model.eval.settings import CodecSettings, as_flag
from ov_model.geometry import Geometry


def read(**variables: str) -> CodecSettings:
    return CodecSettings.from_environment({f"LLAVA_CODEC_{name}": value for name, value in variables.items()})


def test_nothing_set_is_the_published_geometry_and_roots_that_are_found() -> None:
    assert read() == CodecSettings()
    assert read(OFFLINE_ROOT="", USE_OFFLINE="") == CodecSettings()
    assert read().geometry(None) == Geometry()


def test_every_variable_is_honored() -> None:
    found = read(
        USE_OFFLINE="yes", OFFLINE_ROOT="/a/assets:/b/assets", NUM_IMAGES="4", SEQ_LEN_FRAMES="32", SQUARE_SIZE="288",
        PATCH_SIZE="16", VISIDX_MODE="pack_topk", DEBUG="1",
    )  # fmt: skip
    assert found == CodecSettings(True, (Path("/a/assets"), Path("/b/assets")), 4, 32, 288, 16, True)
    assert found.geometry(None) == Geometry(32, 4, 288, 16)
    assert read(USE_OFFLINE="0").use_offline is False


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VISIDX_MODE", "random", "VISIDX_MODE is 'random'; only pack_topk"),
        ("USE_OFFLINE", "maybe", "USE_OFFLINE is 'maybe'; use one of 1, true, yes, 0, false, no"),
        ("NUM_IMAGES", "eight", "NUM_IMAGES is 'eight'; it must be a whole number"),
        ("SQUARE_SIZE", "0", "SQUARE_SIZE is '0'"),
    ],
)
def test_values_that_cannot_be_honored_are_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(**{name: value})


def test_a_variable_that_contradicts_the_recipe_names_both() -> None:
    recipe = Geometry(8, 2, 64, 16)
    assert read(NUM_IMAGES="2").geometry(recipe) == recipe
    with pytest.raises(UsageError, match=r"LLAVA_CODEC_NUM_IMAGES is 8, .* num_images 2"):
        read(NUM_IMAGES="8").geometry(recipe)
    with pytest.raises(UsageError, match=r"geometry.square_size is 576, .* square_size 64"):
        read().geometry(recipe, Geometry(8, 2))


def test_an_argument_wins_over_a_variable() -> None:
    assert read(NUM_IMAGES="8").geometry(None, Geometry(8, 2, 64, 16)) == Geometry(8, 2, 64, 16)
    assert as_flag("True", "x") is True
