"""`ov precompute`: the published folder for each video; done once, shared, redone when what matters changed."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ov_model import cli, stage1, stage2
from ov_model.errors import UsageError
from ov_model.eval.benchmarks import Benchmark, Places
from ov_model.lake.layout import ASSET_META, ASSET_MOSAIC, FRAME_IDS, POSITIONS, VISIBLE_INDICES
from ov_model.lake.ledger import Report, read_ledger
from ov_model.lake.media import hash_media
from ov_model.precompute import PrecomputeConfig, precompute_command, run
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.factories import make_frames, make_record, make_video, overwrite, truncate, write_dataset

# The options of the reference's tool, with a value each.
OPTIONS = {
    "num_workers": "3", "chunksize": "2", "opencv_threads": "2", "overwrite": None, "only_exists": None,
    "max_samples": "5", "num_shards": "4", "shard_id": "1", "log_every": "7", "seq_len_frames": "32",
    "num_images": "4", "square_size": "288", "patch_size": "12", "keep_mid_full_frame": None,
    "mid_full_frame_index": "3", "topk_mode": "time_bucket", "time_bucket_count": "5", "mv_unit_div": "2.0",
    "mv_pct": "90", "res_pct": "91", "w_mv": "2", "w_res": "3", "mv_compensate": "mean", "res_use_grad": None,
    "window_len": "9", "window_pick": "energy3", "jpg_quality": "80",
}  # fmt: skip
OURS = {
    "signal": "motion", "normalize": "clip", "intra": "zero", "apply_sar": None, "damaged": "fail", "media_root": "m",
    "retry_failed": None, "timeout": "9", "memory_gb": "2", "maxtasks_per_child": "7", "scratch": "s",
    "scratch_gb": "9",
}  # fmt: skip
PUBLISHED_DEFAULTS = {
    "num_workers": 8, "max_samples": 0, "num_shards": 1, "shard_id": 0, "log_every": 20, "seq_len_frames": 64,
    "num_images": 8, "square_size": 576, "patch_size": 16, "keep_mid_full_frame": False, "mid_full_frame_index": -1,
    "topk_mode": "global", "time_bucket_count": -1, "mv_unit_div": 4.0, "mv_pct": 95.0, "res_pct": 95.0, "w_mv": 1.0,
    "w_res": 1.0, "mv_compensate": "median", "res_use_grad": False, "window_len": 0, "window_pick": "none",
    "jpg_quality": 95, "only_exists": True, "overwrite": False,
}  # fmt: skip
CFG = {
    "seq_len_frames", "num_images", "square_size", "patch_size", "mv_unit_div", "mv_pct", "res_pct", "w_mv", "w_res",
    "mv_compensate", "res_use_grad", "window_len", "window_pick", "keep_mid_full_frame", "mid_full_frame_index",
    "topk_mode", "time_bucket_count",
}  # fmt: skip
DEBUG = {
    "seq_len_frames", "num_images", "square_size", "patch_size", "hb", "wb", "S_total", "S_valid", "K_total",
    "keep_first_full", "keep_mid_full", "mid_full_t", "topk_mode", "time_bucket_count", "vi_min", "vi_max", "T_all",
    "fps", "window_pick", "window_len", "start_offset", "end_offset", "pkt_size_sum", "best", "seek_to", "decode_span",
    "frame_ids_unique",
}  # fmt: skip
FILES = ["frame_ids.npy", "meta.json", "mosaic_000.jpg", "mosaic_001.jpg", "positions_thw.npy", "visible_indices.npy"]


def parse(*argv: str) -> PrecomputeConfig:
    _, bound, _ = cli.app.parse_args(cli.spell(["precompute", "--jsonl", "v.jsonl", "--out_root", "o", *argv]))
    return bound.arguments["config"]


def config(tmp_path: Path, lines: Sequence[Any] | None = None, **more: Any) -> PrecomputeConfig:
    """Two mosaics of 4 x 4 patches from 8 frames, in this process; `lines` replace the list of videos."""
    jsonl = tmp_path / "videos.jsonl"
    if lines is not None:
        write_dataset(jsonl, lines)
    made = PrecomputeConfig(
        jsonl=jsonl, out_root=tmp_path / "out", num_workers=0, seq_len_frames=8, num_images=2, square_size=64
    )
    return replace(made, **more)


def line(video: Path, key: str | None = None, **more: Any) -> dict[str, Any]:
    return {"video": str(video), "key": key or video.stem, **more}


def meta(tmp_path: Path, key: str) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "assets" / key / ASSET_META).read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an asset, the meta file without what differs between runs."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    said = json.loads(found[ASSET_META])
    found[ASSET_META] = json.dumps({**said, "created_at": "", "stats": {}}).encode()
    return found


def statuses(report: Report) -> list[tuple[str, str, str]]:
    assert report.ledger is not None
    return list(read_ledger(report.ledger).select("id", "status", "reason").iter_rows())


@pytest.mark.parametrize(("option", "value"), [*OPTIONS.items(), *OURS.items()])
def test_every_option_parses(option: str, value: str | None) -> None:
    default = getattr(parse(), option)
    for spelling in (option, option.replace("_", "-")):
        given = getattr(parse(f"--{spelling}", *([] if value is None else [value])), option)
        assert given is True if value is None else str(given) in (value, f"{value}.0")
        assert given != default or option in ("only_exists",)
    if value is None:
        assert getattr(parse(f"--no-{option}"), option) is False


def test_options_and_defaults_are_the_published_ones() -> None:
    fields = {field.name for field in dataclasses.fields(PrecomputeConfig)}
    assert fields == OPTIONS.keys() | OURS.keys() | {"jsonl", "out_root", "allowed_roots"}
    config = parse()
    assert {name: getattr(config, name) for name in PUBLISHED_DEFAULTS} == PUBLISHED_DEFAULTS
    assert config.asset_options().choose.geometry.num_patches == 10368


def test_options_without_effect_are_told_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ov"):
        run(config(tmp_path, []))
        assert caplog.messages == []
        run(config(tmp_path, [], chunksize=4, opencv_threads=1))
    assert [message.split()[0] for message in caplog.messages] == ["chunksize", "opencv_threads"]


def test_an_asset_is_the_published_folder(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=20)
    report = run(config(tmp_path, [line(video, task="videomme", split="test", doc_id=7, n=3, exists=True)]))
    assert (report.rows, report.ok, report.computed, report.signals) == (1, 1, 1, {"residual": 1})
    folder = tmp_path / "out" / "assets" / "v"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    pos_K3, visible_K, frame_ids_T = (np.load(folder / name) for name in (POSITIONS, VISIBLE_INDICES, FRAME_IDS))
    assert [(a.dtype.str, a.shape) for a in (pos_K3, visible_K, frame_ids_T)] == [
        ("<i4", (32, 3)), ("<i8", (32,)), ("<i4", (8,))
    ]  # fmt: skip
    assert visible_K.tolist() == (pos_K3 @ [16, 4, 1]).tolist() == sorted(visible_K.tolist())
    assert frame_ids_T.tolist() == [0, 2, 5, 8, 10, 13, 16, 19]
    assert visible_K[:16].tolist() == list(range(16))
    with Image.open(folder / ASSET_MOSAIC.format(0)) as mosaic:
        assert (mosaic.size, mosaic.mode, mosaic.format) == ((64, 64), "RGB", "JPEG")
    said = meta(tmp_path, "v")
    assert list(said)[:11] == [
        "version", "task", "split", "doc_id", "n", "video", "key", "created_at", "cfg", "debug", "stats"
    ]  # fmt: skip
    assert said["version"] == "llava_codec_offline_precompute_v1"
    assert (said["task"], said["split"], said["doc_id"], said["n"], said["key"]) == ("videomme", "test", 7, 3, "v")
    assert (said["cfg"].keys(), said["debug"].keys(), said["stats"].keys()) == (CFG, DEBUG, {"elapsed_sec"})
    assert (said["size"], said["content_hash"]) == hash_media(video)
    assert (said["config_hash"], said["signal"], said["repeated_tail"]) == (report.config_hash, "residual", 0)
    debug = said["debug"]
    assert (debug["S_valid"], debug["K_total"], debug["T_all"], debug["fps"]) == (8, 32, 20, 25.0)
    assert (debug["start_offset"], debug["end_offset"], debug["decode_span"]) == (0, 19, 20)
    assert (debug["vi_min"], debug["vi_max"]) == (0, int(visible_K.max()))
    assert (debug["keep_mid_full"], debug["mid_full_t"], debug["frame_ids_unique"]) == (False, -1, 8)


def test_global_mode_is_stages_1_and_2_with_repeat(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", frames=30, pattern="pan")
    run(config(tmp_path, [line(tmp_path / "v.mp4")]))
    dataset = write_dataset(tmp_path / "raw.json", [make_record("v.mp4")])
    shared = {"media_root": tmp_path, "num_workers": 0, "square_size": 64}
    stage1.run(
        Stage1Config(
            dataset_path=dataset, out_root=tmp_path / "visidx", sequence_length=8, keep_frames_equiv=2,
            padding_policy="repeat", **shared,
        )
    )  # fmt: skip
    stage2.run(
        Stage2Config(
            input_dataset=dataset, visidx_root=tmp_path / "visidx", out_image_root=tmp_path / "images",
            out_jsonl=tmp_path / "train.jsonl", T=8, num_images=2, **shared,
        )
    )  # fmt: skip
    ours = contents(tmp_path / "out" / "assets" / "v")
    (images,) = (tmp_path / "images").glob("sample_*")
    for theirs, name in (("v_000.jpg", "mosaic_000.jpg"), ("v_001.jpg", "mosaic_001.jpg"), (POSITIONS, POSITIONS)):
        assert (images / theirs).read_bytes() == ours[name]
    (frame_ids,) = (tmp_path / "visidx").glob("*.frame_ids.npy")
    assert frame_ids.read_bytes() == ours[FRAME_IDS]


def test_whole_frames_buckets_and_windows_reach_the_files(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=40, height=96)
    run(
        config(
            tmp_path, [line(video)], num_images=4, keep_mid_full_frame=True, topk_mode="time_bucket", window_len=16,
            window_pick="end", jpg_quality=60,
        )
    )  # fmt: skip
    folder = tmp_path / "out" / "assets" / "v"
    t_K = np.load(folder / POSITIONS)[:, 0]
    assert (np.load(folder / FRAME_IDS) >= 24).all()
    assert [int((t_K == t).sum()) for t in (0, 4)] == [16, 16]
    assert int(np.isin(t_K, [1, 2, 3]).sum()) == int(np.isin(t_K, [5, 6, 7]).sum()) == 16
    debug = meta(tmp_path, "v")["debug"]
    assert (debug["start_offset"], debug["end_offset"], debug["keep_mid_full"], debug["mid_full_t"]) == (
        24,
        39,
        True,
        4,
    )
    with Image.open(folder / "mosaic_000.jpg") as mosaic:
        coarse = mosaic.quantization
    run(config(tmp_path, jpg_quality=95))
    with Image.open(folder / "mosaic_000.jpg") as mosaic:
        assert sum(coarse[0]) > sum(mosaic.quantization[0])


def test_again_does_nothing_and_another_option_redoes_everything(tmp_path: Path) -> None:
    lines = [line(make_video(tmp_path / f"v{i}.mp4", seed=i)) for i in range(2)]
    first = run(config(tmp_path, lines, num_images=4))
    before = {key: contents(tmp_path / "out" / "assets" / key) for key in ("v0", "v1")}
    again = run(config(tmp_path, num_images=4))
    assert (again.computed, again.reused, again.data_version) == (0, 2, first.data_version)
    changed = run(config(tmp_path))
    assert (changed.computed, changed.ok) == (2, 2)
    assert changed.config_hash != first.config_hash
    assert sorted(path.name for path in (tmp_path / "out" / "assets" / "v0").iterdir()) == FILES
    assert meta(tmp_path, "v0")["cfg"]["num_images"] == 2
    assert run(config(tmp_path, num_images=4)).data_version == first.data_version
    assert {key: contents(tmp_path / "out" / "assets" / key) for key in ("v0", "v1")} == before


def test_what_is_lost_or_not_ours_is_made_again(tmp_path: Path) -> None:
    run(config(tmp_path, [line(make_video(tmp_path / "v.mp4"))]))
    folder = tmp_path / "out" / "assets" / "v"
    before = contents(folder)
    for name in FILES:
        (folder / name).unlink()
        assert run(config(tmp_path)).computed == 1, name
        assert contents(folder) == before
    other = {name: value for name, value in meta(tmp_path, "v").items() if name != "config_hash"}
    (folder / ASSET_META).write_text(json.dumps(other))
    assert run(config(tmp_path)).computed == 1
    assert contents(folder) == before


def test_a_changed_video_or_line_is_followed(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    run(config(tmp_path, [line(video, task="a")]))
    report = run(config(tmp_path, [line(video, task="b")]))
    assert (report.computed, report.ok, meta(tmp_path, "v")["task"]) == (0, 1, "b")
    make_video(video, seed=5)
    assert run(config(tmp_path)).computed == 1
    assert (meta(tmp_path, "v")["size"], meta(tmp_path, "v")["content_hash"]) == hash_media(video)


def test_one_video_under_two_keys_is_one_decode(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    copy = Path(shutil.copy(video, tmp_path / "w.mp4"))
    report = run(config(tmp_path, [line(video, "a"), line(copy, "b", task="t")]))
    assert (report.ok, report.computed) == (2, 1)
    a, b = (tmp_path / "out" / "assets" / key for key in "ab")
    assert (a / "mosaic_000.jpg").samefile(b / "mosaic_000.jpg")
    assert (meta(tmp_path, "b")["key"], meta(tmp_path, "b")["video"]) == ("b", str(copy))
    (b / POSITIONS).unlink()
    assert run(config(tmp_path)).computed == 0
    assert (b / POSITIONS).read_bytes() == (a / POSITIONS).read_bytes()


def test_one_key_for_two_videos_stops_before_any_work(tmp_path: Path) -> None:
    lines = [line(make_video(tmp_path / f"{name}.mp4"), "k") for name in "ab"]
    with pytest.raises(UsageError, match=r"'k' names two videos, .*a\.mp4 \(line 1\) and .*b\.mp4 \(line 2\)"):
        run(config(tmp_path, lines))
    assert not (tmp_path / "out").exists()


def test_lines_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    away = line(tmp_path / "away.mp4", exists=False)
    bad = ["", None, ["k"], True]
    lines = [line(video, "v"), line(video, "v"), line(video, "v", task="other"), away, {"key": "k"}, [], 7]
    report = run(config(tmp_path, lines + [{"video": str(video), "key": key} for key in bad]))
    assert (report.ok, report.duplicates, report.skipped) == (1, 2, 1)
    assert report.reasons == {"bad_record": 3 + len(bad)}
    assert ("away", "skipped", "missing_file") in statuses(report)
    assert [path.name for path in (tmp_path / "out" / "assets").iterdir()] == ["v"]
    report = run(config(tmp_path, [away], only_exists=False))
    assert (report.skipped, report.reasons) == (0, {"missing_file": 1})


def test_an_ordinary_key_names_its_folder_and_any_other_stays_below_assets(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4")
    ordinary = ["a b", "#1", "-x", "a__b", "x.mp4"]
    odd = ["../x", "/x", ".", "..", "a/b", "a\\b", "x\0", ".hidden", "CON", "é" * 128]
    lines = [*(line(video, key) for key in ordinary + odd), {"video": str(video), "key": 17}]
    assert run(config(tmp_path, lines)).ok == len(lines)
    folders = list((tmp_path / "out" / "assets").iterdir())
    assert {*ordinary, "17"} < {folder.name for folder in folders}
    kept = {json.loads((folder / "meta.json").read_text())["key"] for folder in folders}
    assert kept == {*ordinary, *odd, "17"}
    assert {path.name for path in tmp_path.iterdir()} == {"v.mp4", "out", "videos.jsonl"}


def test_shards_are_lines_by_their_number(tmp_path: Path) -> None:
    lines = [line(make_video(tmp_path / f"v{i}.mp4", seed=i)) for i in range(5)]
    reports = [run(config(tmp_path, lines, num_shards=2, shard_id=shard)) for shard in (0, 1)]
    found = [[sample for sample, _, _ in statuses(report)] for report in reports]
    assert found == [["v0", "v2", "v4"], ["v1", "v3"]]
    assert run(config(tmp_path, max_samples=2, num_shards=2)).rows == 3


def test_folders_and_odd_videos_end_with_an_asset_or_a_reason(tmp_path: Path) -> None:
    frames = make_frames(tmp_path / "frames", 20)
    broken = make_frames(tmp_path / "broken", 4)
    truncate(broken / "00002.jpg", 0.5)
    make_video(tmp_path / "damaged.mp4", frames=30, pattern="pan")
    overwrite(tmp_path / "damaged.mp4", 0.5, 3000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video " * 50)
    make_video(tmp_path / "vp9.webm", codec="libvpx-vp9")
    names = ["damaged.mp4", "empty.mp4", "text.mp4", "vp9.webm"]
    report = run(config(tmp_path, [line(frames), line(broken), *(line(tmp_path / name) for name in names)]))
    assert statuses(report) == [
        ("frames", "ok", ""),
        ("broken", "failed", "decode_error"),
        ("damaged", "ok", ""),
        ("empty", "failed", "empty_file"),
        ("text", "failed", "unreadable_container"),
        ("vp9", "ok", ""),
    ]
    assert report.signals == {"reencode": 2, "residual": 1}
    assert (meta(tmp_path, "frames")["size"], meta(tmp_path, "frames")["content_hash"]) == hash_media(frames)
    said = meta(tmp_path, "damaged")
    assert said["damaged"]
    assert said["debug"]["T_all"] <= 30
    assert not (tmp_path / "out" / "assets" / "broken").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = Benchmark(name="b", task="b_mc", tasks_path="b", cache_dir="b", metric="m")
    places = Places(benchmark, tmp_path / "a home")
    command = shlex.split(precompute_command(places))
    places.offline.mkdir(parents=True)
    lines = [line(make_video(tmp_path / "v.mp4")), line(tmp_path / "gone.mp4")]
    write_dataset(places.videos_jsonl, lines)
    small = ["--seq_len_frames", "8", "--num_images", "2", "--square_size", "64", "--num_workers", "1"]
    for code in (3, 3):
        with pytest.raises(SystemExit) as stop:
            cli.main([*command[1:], *small])
        assert stop.value.code == code
    assert (places.assets / "v" / ASSET_META).is_file()
    shown = capsys.readouterr().out
    assert "already done" in shown
    assert "failed gone, missing_file" in shown
    for name, expected in (("status", "assets"), ("failures", "missing_file")):
        with pytest.raises(SystemExit):
            cli.main([name, str(places.offline)])
        assert expected in capsys.readouterr().out


def test_the_published_clip_agrees_with_the_published_mosaics(shared_data: Path, tmp_path: Path) -> None:
    video = shared_data / "demo" / "videos" / "ytb_XwB-dkS5BVM.mp4"
    asked = PrecomputeConfig(jsonl=write_dataset(tmp_path / "v.jsonl", [line(video)]), out_root=tmp_path / "out")
    run(replace(asked, num_workers=0))
    folder = tmp_path / "out" / "assets" / video.stem
    (published,) = (shared_data / "reference" / "stage2").rglob("*_000.jpg")
    assert (folder / ASSET_MOSAIC.format(0)).read_bytes() == published.read_bytes()
    assert np.load(folder / POSITIONS).shape == (10368, 3)
    assert (folder / FRAME_IDS).read_bytes() == next(
        (shared_data / "reference" / "stage1").glob("*.frame_ids.npy")
    ).read_bytes()
