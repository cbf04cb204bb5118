"""`ov adopt`: the reference's files are checked, entered, and reused by the commands that would make them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ov_model import precompute, stage1, stage2
from ov_model.lake.ledger import read_ledger
from ov_model.ops.adopt import adopt_precompute, adopt_stage1, adopt_stage2
from tests.factories import make_record, make_video, write_dataset
from tests.ops.configs import assets_config, stage1_config, stage2_config

OURS = ("content_hash", "config_hash", "stage_version", "signal", "signal_method", "signal_requested", "visidx_hash",
        "size", "output_hash", "repeated_tail", "damaged", "options")  # fmt: skip


def as_reference(folder: Path) -> None:
    """What the reference would have left: no ledger, and metas without our fields."""
    shutil.rmtree(folder / "ledger")
    for path in [*folder.rglob("*.meta.json"), *folder.rglob("meta.json")]:
        meta = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in meta.items() if name not in OURS}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        make_video(tmp_path / f"{name}.mp4", seed=seed, frames=20 + seed)
    records = [make_record(f"{name}.mp4", id=name) for name in "abc"] + [make_record(None, id="t", kind="text")]
    write_dataset(tmp_path / "raw.json", records)
    write_dataset(tmp_path / "videos.jsonl", [{"video": f"{name}.mp4", "key": name} for name in "abc"])
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "ledger" not in path.parts
    }


def test_adopted_visidx_and_packs_are_reused(root: Path) -> None:
    stage1.run(stage1_config(root))
    stage2.run(stage2_config(root))
    as_reference(root / "visidx")
    as_reference(root / "images")
    before = contents(root / "visidx") | contents(root / "images")
    for adopt in (lambda: adopt_stage1(stage1_config(root)), lambda: adopt_stage2(stage2_config(root))):
        adopted = adopt()
        assert (adopted.adopted, adopted.problems, adopted.exit_code) == (3, [], 0)
        assert adopt().already == 3
    report = stage1.run(stage1_config(root))
    assert not isinstance(report, list)
    packed, _ = stage2.run(stage2_config(root))
    for one in (report, packed):
        assert (one.ok, one.computed, one.signals) == (3, 0, {"reference": 3})
    assert contents(root / "visidx") | contents(root / "images") == before | {
        name: data for name, data in contents(root / "visidx").items() if name.startswith("stage1_")
    }
    again = stage1.run(stage1_config(root, overwrite=True))
    assert not isinstance(again, list)
    assert (again.computed, again.signals) == (3, {"residual": 3})


def test_adopted_assets_are_reused_until_they_change(root: Path) -> None:
    precompute.run(assets_config(root))
    as_reference(root / "offline")
    before = contents(root / "offline")
    assert adopt_precompute(assets_config(root)).adopted == 3
    report = precompute.run(assets_config(root))
    assert (report.ok, report.computed, report.reused, report.signals) == (3, 0, 3, {"reference": 3})
    assert contents(root / "offline") == before
    meta = root / "offline" / "assets" / "a" / "meta.json"
    meta.write_text(meta.read_text() + " ")
    assert precompute.run(assets_config(root)).computed == 1
    assert precompute.run(assets_config(root, overwrite=True)).computed == 3


def spoil_positions(folder: Path) -> None:
    path = next(folder.glob("sample_a__*.visidx_thw.npy"))
    pos = np.load(path)
    pos[5] = pos[4]
    np.save(path, pos)


def spoil_frames(folder: Path) -> None:
    path = next(folder.glob("sample_a__*.frame_ids.npy"))
    np.save(path, np.load(path) + 1)


def spoil_shape(folder: Path) -> None:
    path = next(folder.glob("sample_a__*.visidx_thw.npy"))
    np.save(path, np.load(path).astype(np.int64))


def spoil_video(folder: Path) -> None:
    make_video(folder.parent / "a.mp4", width=64, height=96, frames=20)


def spoil_file(folder: Path) -> None:
    next(folder.glob("sample_a__*.frame_ids.npy")).unlink()


def spoil_medium(folder: Path) -> None:
    (folder.parent / "a.mp4").unlink()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (spoil_positions, "positions_repeated"),
        (spoil_frames, "frame_ids"),
        (spoil_shape, "positions_dtype"),
        (spoil_video, "other_video"),
        (spoil_file, "missing_visidx"),
        (spoil_medium, "missing_file"),
    ],
)
def test_stage_1_files_with_a_problem_are_left_out_by_name(
    root: Path, spoil: Callable[[Path], None], code: str
) -> None:
    stage1.run(stage1_config(root))
    as_reference(root / "visidx")
    spoil(root / "visidx")
    before = contents(root / "visidx")
    adopted = adopt_stage1(stage1_config(root))
    assert adopted.adopted == 2
    assert adopted.exit_code == 3
    assert adopted.left_out == {code: 1}
    assert {problem.sample_id for problem in adopted.problems} == {"a"}
    assert contents(root / "visidx") == before
    report = stage1.run(stage1_config(root))
    assert not isinstance(report, list)
    assert report.computed == (0 if code == "missing_file" else 1)


def test_other_options_and_other_geometry_are_refused(root: Path) -> None:
    stage1.run(stage1_config(root))
    as_reference(root / "visidx")
    adopted = adopt_stage1(stage1_config(root, padding_policy="repeat"))
    assert (adopted.adopted, adopted.exit_code, adopted.left_out) == (0, 1, {"other_options": 3})


def test_packs_that_do_not_belong_are_left_out(root: Path) -> None:
    stage1.run(stage1_config(root))
    stage2.run(stage2_config(root))
    as_reference(root / "images")
    packs = {path.name.split("_")[1]: path for path in (root / "images").iterdir()}
    shutil.copy(packs["b"] / "positions_thw.npy", packs["a"] / "positions_thw.npy")
    (packs["b"] / "b_001.jpg").write_bytes((packs["b"] / "b_001.jpg").read_bytes()[:-40])
    adopted = adopt_stage2(stage2_config(root))
    assert adopted.adopted == 1
    assert adopted.left_out == {"positions_not_chosen": 1, "unreadable_image": 1}
    assert [p.code for p in adopted.problems if p.code.startswith("jsonl")] == ["jsonl_row_unknown"] * 2
    report, _ = stage2.run(stage2_config(root))
    assert (report.ok, report.computed) == (3, 2)


def test_a_training_jsonl_is_held_against_the_records(root: Path) -> None:
    stage1.run(stage1_config(root))
    stage2.run(stage2_config(root))
    lines = (root / "train.jsonl").read_text().splitlines()
    changed = json.loads(lines[0])
    changed["conversations"][1]["value"] = "Another answer."
    (root / "train.jsonl").write_text("\n".join([json.dumps(changed), *lines[2:]]) + "\n")
    adopted = adopt_stage2(stage2_config(root))
    assert (adopted.already, adopted.exit_code) == (3, 3)
    assert [(p.code, p.sample_id, p.line) for p in adopted.problems] == [
        ("jsonl_row", "a", 1),
        ("jsonl_row_missing", "b", 0),
    ]


def test_assets_of_another_key_or_options_are_left_out(root: Path) -> None:
    precompute.run(assets_config(root))
    as_reference(root / "offline")
    assets = root / "offline" / "assets"
    (assets / "a" / "frame_ids.npy").unlink()
    meta = json.loads((assets / "b" / "meta.json").read_text())
    (assets / "b" / "meta.json").write_text(json.dumps({**meta, "cfg": {**meta["cfg"], "w_mv": 2.0}}))
    shutil.copy(assets / "a" / "meta.json", assets / "c" / "meta.json")
    adopted = adopt_precompute(assets_config(root))
    assert (adopted.adopted, adopted.exit_code) == (0, 1)
    assert adopted.left_out == {"missing_output": 1, "other_options": 1, "other_key": 1}
    assert read_ledger(root / "offline" / "ledger" / "assets.shard00of01.parquet").is_empty()
