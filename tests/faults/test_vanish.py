"""Files that vanish, shrink or change in the middle of a run: it costs their sample, which a later run makes good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.factories import make_frames, make_record, make_video, truncate, write_dataset
from tests.faults.processes import expect_same, lines, ov
from tests.faults.stages import VIDEOS, WORKERS, Playground


@pytest.fixture
def playground(tmp_path: Path) -> Playground:
    return Playground.make(tmp_path)


@pytest.mark.parametrize("tool", ["stage1", "stage2", "precompute"])
def test_a_video_that_vanishes_fails_alone_and_is_made_when_it_is_back(playground: Playground, tool: str) -> None:
    out, video = playground.folder / "out", playground.folder / f"v{VIDEOS - 1}.mp4"
    run = playground.start(tool, out)
    run.wait_until(lambda: lines(playground.journal(tool, out)) >= 1)
    video.rename(video.with_suffix(".away"))
    said = run.finish(3)
    assert f"failed v{VIDEOS - 1}, missing_file" in said
    video.with_suffix(".away").rename(video)
    playground.start(tool, out).finish()
    playground.expect_as_undisturbed(tool, out)


def test_a_video_that_is_replaced_meanwhile_is_made_anew(playground: Playground) -> None:
    out, video = playground.folder / "out", playground.folder / f"v{VIDEOS - 1}.mp4"
    run = playground.start("stage1", out)
    run.wait_until(lambda: lines(playground.journal("stage1", out)) >= 1)
    new = make_video(playground.folder / "new.mp4", width=320, height=192, frames=30, seed=99)
    new.rename(video)
    run.finish()
    playground.run_here("stage1", out)
    playground.run_here("stage1", playground.folder / "after")
    expect_same(out, playground.folder / "after")


def test_a_file_cut_off_while_it_is_read_ends_with_a_reason(playground: Playground) -> None:
    out = playground.folder / "out"
    run = playground.start("stage1", out)
    run.wait_until(lambda: lines(playground.journal("stage1", out)) >= 1)
    for number in range(VIDEOS - WORKERS, VIDEOS):
        truncate(playground.folder / f"v{number}.mp4", 0.3)
    run.finish(3)
    playground.start("stage1", out).finish(3)
    playground.run_here("stage1", playground.folder / "after")
    expect_same(out, playground.folder / "after")


def test_frames_that_vanish_from_a_folder(tmp_path: Path) -> None:
    folders = [make_frames(tmp_path / f"f{number}", frames=12 + number) for number in range(3)]
    dataset = write_dataset(tmp_path / "raw.json", [make_record(f.name, id=f.name) for f in folders])
    command = ["stage1", "--dataset_path", dataset, "--out_root", tmp_path / "out", "--media_root", tmp_path]
    command += ["--num_workers", 1, "--square_size", 64, "--sequence_length", 8, "--keep_frames_equiv", 2]
    run = ov(*command)
    run.wait_until(lambda: bool(run.alive("multiprocessing.spawn")))
    shutil.rmtree(folders[2])
    said = run.finish(3)
    assert "failed f2, missing_file" in said
    assert "computed now │ 2 media" in said or "2 media in" in said


def test_outputs_that_vanish_are_made_again(playground: Playground) -> None:
    out = playground.folder / "out"
    playground.run_here("stage1", out)
    for path in sorted(out.glob("*.visidx_thw.npy"))[::2]:
        path.unlink()
    playground.run_here("stage1", out)
    playground.expect_as_undisturbed("stage1", out)
