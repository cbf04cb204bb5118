"""The operator's commands as a person types them: what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov_model.cli import main
from tests.factories import make_record, make_video, write_dataset
from tests.lake.lanes import lane, run
from tests.ops.test_adopt import as_reference

SMALL = ["--sequence-length", "8", "--keep-frames-equiv", "2", "--square-size", "64", "--num-workers", "0"]


def ov(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """(exit code, what was printed)."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(str(ended.value.code or 0)), captured.out + captured.err


def test_commands_on_a_lake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate("ab"):
        make_video(tmp_path / f"{name}.mp4", seed=seed)
    dataset = lane(tmp_path, [make_record(f"{name}.mp4", id=name) for name in "ab"])
    run(dataset)
    code, text = ov(capsys, "verify", dataset.root, "--hash")
    assert (code, "6 rows, 12 files" in text, "0 with faults" in text) == (0, True, True)
    code, text = ov(capsys, "du", dataset.root, "--json")
    assert (code, {row["stage"] for row in json.loads(text)}) == (0, {"raw_videos", "visidx", "mosaics", "other files"})
    assert "mosaics" in ov(capsys, "du", tmp_path)[1]
    code, text = ov(capsys, "remove", dataset.root, "b", "--dry-run")
    assert (code, "would remove record 1  id b  b.mp4" in text) == (0, True)
    assert ov(capsys, "remove", dataset.root)[0] == 2
    assert ov(capsys, "remove", dataset.root, "nobody")[0] == 2
    assert json.loads(ov(capsys, "remove", dataset.root, "b", "--json")[1])["records"][0]["id"] == "b"
    assert "restored b.mp4|b|1" in ov(capsys, "remove", dataset.root, "b", "--restore")[1]
    code, text = ov(capsys, "reshard", dataset.root, "3")
    assert (code, "1 shards are 3 now" in text) == (0, True)
    (next(dataset.root.glob("visidx/*.frame_ids.npy"))).unlink()
    code, text = ov(capsys, "verify", dataset.root, "--repair")
    assert (code, "missing_output" in text, "1 rows marked" in text) == (3, True, True)
    code, text = ov(capsys, "gc", dataset.root)
    assert (code, "could be removed with --yes" in text) == (0, True)
    assert ov(capsys, "gc", dataset.root, "--yes", "--dry-run")[0] == 2
    assert " removed, " in ov(capsys, "gc", dataset.root, "--yes")[1]


def test_plan_and_adopt_take_the_commands_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "a.mp4")
    write_dataset(tmp_path / "raw.json", [make_record("a.mp4", id="a"), make_record("gone.mp4", id="gone")])
    options = [
        "--dataset-path",
        tmp_path / "raw.json",
        "--out-root",
        tmp_path / "out",
        "--media-root",
        tmp_path,
        *SMALL,
    ]
    code, text = ov(capsys, "plan", "stage1", *options)
    assert (code, "2 with 2 videos" in text, "2, of them 1 failed" in text) == (0, True, True)
    assert json.loads(ov(capsys, "plan", "stage1", *options, "--json")[1])["todo"] == 2
    assert ov(capsys, "stage1", *options)[0] == 3
    as_reference(tmp_path / "out")
    code, text = ov(capsys, "adopt", "stage1", *options)
    assert (code, "1 adopted" in text, "missing_file" in text) == (3, True, True)
    code, text = ov(capsys, "stage1", *options)
    assert (code, "reference 1" in text, "0 media" in text) == (3, True, True)
    assert ov(capsys, "adopt", "stage1", *options, "--padding-policy", "exclude")[0] == 1
