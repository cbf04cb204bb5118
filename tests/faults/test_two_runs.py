"""Two runs of one shard at once: one works, the other refuses and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.processes import lines, outputs
from tests.faults.stages import TOOLS, Playground


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Playground:
    return Playground.make(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_second_refuses_while_the_first_lives_stopped_or_not(
    playground: Playground, tmp_path: Path, tool: str
) -> None:
    out = tmp_path / "out"
    first = playground.start(tool, out)
    first.wait_until(lambda: lines(playground.journal(tool, out)) >= 2)
    with first.suspended():
        before = outputs(out)
        said = playground.start(tool, out).finish(1)
        assert f"being written by process {first.process.pid} on" in said
        assert outputs(out) == before
    first.finish()
    playground.expect_as_undisturbed(tool, out)


def test_many_started_in_the_same_instant_are_one(playground: Playground, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [playground.start("stage1", out) for _ in range(4)]
    said = [run.process.communicate()[0] for run in runs]
    codes = [run.process.returncode for run in runs]
    assert set(codes) <= {0, 1}
    assert 0 in codes
    refused = [text for text, code in zip(said, codes, strict=True) if code]
    assert all("being written by process" in text for text in refused)
    computed = [int(text.partition("computed now")[2].split()[1]) for text in said if "computed now" in text]
    assert sorted(computed)[:-1] == [0] * (len(computed) - 1)
    playground.expect_as_undisturbed("stage1", out)
