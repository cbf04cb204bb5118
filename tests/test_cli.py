"""`ov`: every documented option parses, in both spellings; exit codes say what happened; errors are one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ov_model import cli
from ov_model.lake.layout import short_sha1
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.factories import make_image, make_record, make_video, write_dataset

# The options that the reference's README and tools document, with a value each.
STAGE1_OPTIONS = {
    "sequence_length": "64", "sample_start_offset": "3", "keep_frames_equiv": "8", "square_size": "576",
    "patch_size": "16", "keep_first_full_frame": None, "padding_policy": "zero",
    "mv_unit_div": "4.0", "mv_pct": "95", "res_pct": "95", "fuse_mode": "weighted", "w_mv": "1", "w_res": "1",
    "mv_compensate": "median", "res_use_grad": None, "num_workers": "8", "max_samples": "5", "num_shards": "4",
    "shard_id": "1", "shard_dataset_out_dir": "d", "check_codec": None, "allowed_codecs": "h264,hevc",
    "fail_txt": "f", "unsupported_txt": "u", "log_every": "10", "maxtasks_per_child": "7",
    "signal": "residual", "normalize": "clip", "retry_failed": None, "overwrite": None, "media_root": "m",
    "damaged": "fail", "apply_sar": None, "timeout": "9", "intra": "contrast",
}  # fmt: skip
STAGE2_OPTIONS = {
    "mode": "rewrite", "visidx_root": "v", "num_images": "8", "square_size": "576", "T": "64", "patch": "16",
    "layout": "spatial", "first_full": None, "write_positions": None, "export_patches": None,
    "include_positions": None, "skip_missing": None, "skip_missing_packs": None, "force_shard_out": None,
    "num_shards": "2", "shard_id": "1", "num_workers": "3", "max_samples": "4", "log_every": "2",
    "maxtasks_per_child": "9", "fail_txt": "f", "absolute_paths": None, "media_root": "m",
}  # fmt: skip
REQUIRED = {
    "stage1": ["--dataset_path", "raw.json", "--out_root", "o"],
    "stage2": ["--input_dataset", "raw.json", "--out_jsonl", "j", "--out_image_root", "i"],
}
SMALL1 = ["--sequence_length", "8", "--keep_frames_equiv", "2", "--square_size", "64", "--num_workers", "1"]
SMALL2 = ["--T", "8", "--num_images", "2", "--square_size", "64"]


def parse(*argv: str) -> Stage1Config | Stage2Config:
    _, bound, _ = cli.app.parse_args(cli.spell(argv))
    return bound.arguments["config"]


def ov(*argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in argv])
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [("stage1", *item) for item in STAGE1_OPTIONS.items()] + [("stage2", *item) for item in STAGE2_OPTIONS.items()],
)
def test_every_documented_option_parses_in_both_spellings(stage: str, option: str, value: str | None) -> None:
    default = getattr(parse(stage, *REQUIRED[stage]), option)
    for spelling in (option, option.replace("_", "-")):
        given = getattr(parse(stage, *REQUIRED[stage], f"--{spelling}", *([] if value is None else [value])), option)
        if value is None:
            assert given is True
            off = parse(stage, *REQUIRED[stage], f"--no-{spelling}")
            assert getattr(off, option) is False
        else:
            kind = type(default) if default is not None else type(given)
            assert given == (kind(value) if kind is not type(None) else value)


def test_every_option_of_the_tools_is_listed_above_or_required() -> None:
    ours = {"allowed_roots", "memory_gb", "keep_uniform_first", "retry_failed", "overwrite", "timeout"}
    ours |= {"scratch", "scratch_gb"}
    for config, options, required in (
        (Stage1Config, STAGE1_OPTIONS, {"dataset_path", "out_root"}),
        (Stage2Config, STAGE2_OPTIONS, {"input_dataset", "out_jsonl", "out_image_root"}),
    ):
        assert {field.name for field in dataclasses.fields(config)} - ours == (options.keys() | required) - ours


def test_defaults_are_the_trainable_ones() -> None:
    config = parse("stage1", *REQUIRED["stage1"])
    assert isinstance(config, Stage1Config)
    options = config.choose_options()
    assert (options.signal, options.select.padding_policy, options.select.keep_first_full_frame) == (
        "auto",
        "zero",
        True,
    )
    assert options.geometry.num_patches == 10368
    assert config.log_every == 1000
    assert config.maxtasks_per_child == 2000
    uniform = parse("stage1", *REQUIRED["stage1"], "--keep_uniform_first")
    assert isinstance(uniform, Stage1Config)
    assert not uniform.choose_options().select.keep_first_full_frame


def test_usage_errors_end_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tmp_path / "raw.json", [])
    both = ["--keep_first_full_frame", "--keep_uniform_first"]
    assert ov("stage1", "--dataset_path", dataset, "--out_root", tmp_path / "o", *both) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert len(shown) == 1
    assert shown[0].startswith("ov: keep_first_full_frame and keep_uniform_first contradict")
    assert ov("stage1", "--dataset_path", tmp_path / "none.json", "--out_root", tmp_path / "o") == 2
    assert ov("stage1", "--dataset_path", dataset) == 2
    assert ov("stage9") == 2
    assert ov("stage2", *REQUIRED["stage2"]) == 2
    assert "visidx_root" in capsys.readouterr().err


def test_exit_codes_tell_some_from_none(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4")
    good, gone = make_record("v.mp4", id="v"), make_record("gone.mp4", id="g")
    for name, records, code in (("all", [good], 0), ("some", [good, gone], 3), ("none", [gone], 1)):
        dataset = write_dataset(tmp_path / f"{name}.json", records)
        arguments = ["--dataset_path", dataset, "--out_root", tmp_path / name, "--media_root", tmp_path, *SMALL1]
        assert ov("stage1", *arguments) == code, name


def test_the_two_commands_give_a_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(Path("v.mp4"))
    make_image(Path("i.jpg"))
    records = [
        make_record("v.mp4", id="v", data_source="x"),
        make_record("gone.mp4", id="g"),
        make_record("i.jpg", id="i", kind="image"),
        make_record(None, id="t", kind="text"),
    ]
    write_dataset(Path("raw.json"), records)
    assert ov("stage1", "--dataset_path", "raw.json", "--out_root", "o", *SMALL1) == 3
    assert Path("o/stage1_failed.shard00of01.txt").read_text().split("\t")[:2] == ["g", "gone.mp4"]
    (meta,) = Path("o").glob("*.meta.json")
    hashes = f"{short_sha1('v.mp4')}__{short_sha1('v.mp4|v|0')}"
    assert meta.name == f"sample_v__v__{hashes}_T8_square64_p16_K32.meta.json"
    stage2 = ["--input_dataset", "raw.json", "--visidx_root", "o", "--out_image_root", "img", *SMALL2]
    assert ov("stage2", *stage2, "--out_jsonl", "train.jsonl", "--first_full", "--write_positions") == 3
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["v", "i", "t"]
    assert rows[0]["image"][1].startswith("img/sample_v__v__")
    assert np.load(rows[0]["positions_thw"], allow_pickle=False).shape == (32, 3)
    assert rows[1]["image"] == "i.jpg"
    assert "g\tgone.mp4\tmissing" in Path("train.jsonl.fail.txt").read_text()
    capsys.readouterr()
    assert ov("stage2", *stage2, "--out_jsonl", "skipped.jsonl", "--skip_missing") == 3
    assert ov("stage2", *stage2, "--out_jsonl", "parts.jsonl", "--force_shard_out") == 3
    assert Path("parts.jsonl.shard00of01.jsonl").read_bytes() == Path("train.jsonl").read_bytes()
    rewrite = ["--mode", "rewrite", "--input_dataset", "raw.json", "--out_image_root", "img", *SMALL2]
    assert ov("stage2", *rewrite, "--out_jsonl", "again.jsonl", "--include_positions", "--skip_missing_packs") == 0
    assert Path("again.jsonl").read_bytes() == Path("train.jsonl").read_bytes()
    assert ov("stage2", *stage2, "--out_jsonl", "x.jsonl", "--no-first_full") == 2
    assert "--no-first_full contradicts" in capsys.readouterr().err


def test_shards_split_and_together_hold_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = [make_record(f"v{i}.mp4", id=f"v{i}", frames=4) for i in range(6)]
    for i in range(6):
        make_video(Path(f"v{i}.mp4"), seed=i, frames=4)
    write_dataset(Path("raw.json"), records)
    assert ov("stage1", *REQUIRED["stage1"], "--num_shards", "3", "--shard_dataset_out_dir", "parts") == 0
    parts = sorted(path.name for path in Path("parts").iterdir())
    assert parts == [f"raw.shard0{i}of03.jsonl" for i in range(3)]
    rows = [json.loads(line) for part in parts for line in Path("parts", part).read_text().splitlines()]
    assert sorted(row["_row_idx"] for row in rows) == list(range(6))
    for shard in range(3):
        ov("stage1", *REQUIRED["stage1"], "--num_shards", 3, "--shard_id", shard, *SMALL1)
    assert len(list(Path("o").glob("*.meta.json"))) == 6
    assert ov("stage1", *REQUIRED["stage1"], *SMALL1) == 0
    assert len(list(Path("o").glob("*.meta.json"))) == 6


def test_help_groups_commands_and_tells_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for group in ("Make data", "Look at it", "Train and score"):
        assert group in said
    assert "3 some samples" in said
    assert "--install-completion" in said


def test_completion_is_installed_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--install-completion", "--shell", "bash"])
    assert ended.value.code == 0
    assert "Completion script installed" in capsys.readouterr().out
    (script,) = [path for path in tmp_path.rglob("ov") if path.is_file()]
    assert "benchmark" in script.read_text()
