"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ov_model.geometry import Geometry


def require_or_skip(part: str, reason: str) -> None:
    """Skip, because `part` is not installed here; fail where OV_REQUIRE (`postgres,proxy`) says that it must be."""
    if part in (os.environ.get("OV_REQUIRE") or "").split(","):
        pytest.fail(f"OV_REQUIRE names {part}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published outputs, true codec values and hostile clips; skips where there is none."""
    folder = os.environ.get("OV_SHARED_DATA")
    if not folder:
        pytest.skip("OV_SHARED_DATA is not set: no published outputs to compare with")
    return Path(folder)


@pytest.fixture
def small() -> Geometry:
    """8 frames, 2 mosaics of 4 x 4 patches: everything the published geometry has, 100 times quicker."""
    return Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)
