"""A playground per test: a folder and an instance of Dagster that forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage

from tests.assets.lanes import Playground, make_record, names_of_shard


@pytest.fixture(autouse=True)
def _no_instance_of_another_test() -> Iterator[None]:
    """Dagster remembers the last instance's storage, and not always forgets it with the instance."""
    with set_defs_state_storage(None):
        yield


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    """An empty playground; the test writes the raw dataset."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Playground(tmp_path, instance, {})


@pytest.fixture
def three_clips(playground: Playground) -> Playground:
    """Two clips in shard 0 and one in shard 1, a record each."""
    names = names_of_shard(0, 2) + names_of_shard(1, 1)
    playground.write([make_record(playground.video(name, seed=i), id=name) for i, name in enumerate(names)])
    return playground
