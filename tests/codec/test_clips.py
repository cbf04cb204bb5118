"""Every odd, hostile or unusual clip of the shared data ends as its manifest says: frames, vectors or reason."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from ov_model.codec.pixels import side_data
from ov_model.codec.video import Video, open_video
from ov_model.errors import DamagedVideo, SampleError


def _rows() -> list[dict[str, str]]:
    folder = os.environ.get("OV_SHARED_DATA")
    manifest = Path(folder or ".") / "clips" / "manifest.tsv"
    if not folder or not manifest.is_file():
        return []
    with manifest.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


ROWS = _rows()


def _decode_all(video: Video) -> tuple[list[int], bool]:
    """The display numbers of all frames and whether any carries motion vectors."""
    numbers, vectors = [], False
    for i, frame in video.frames(range(len(video)), motion_vectors=True):
        numbers.append(i)
        vectors = vectors or side_data(frame, "MOTION_VECTORS") is not None
    return numbers, vectors


@pytest.mark.skipif(not ROWS, reason="OV_SHARED_DATA is not set: no hostile clips to read")
@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_a_clip_ends_as_its_manifest_says(row: dict[str, str], shared_data: Path) -> None:
    path = shared_data / "clips" / row["file"]
    if row["expect"] not in ("ok", "ok_damaged"):
        with pytest.raises(SampleError) as caught:
            open_video(path)
        assert caught.value.reason == row["expect"]
        assert row["file"] in str(caught.value)
        return
    with open_video(path) as video:
        if row["expect"] == "ok_damaged":
            with pytest.raises(DamagedVideo, match=row["file"]):
                _decode_all(video)
            video.reindex()
        numbers, vectors = _decode_all(video)
        assert video.damaged == (row["expect"] == "ok_damaged")
    assert numbers == list(range(int(row["frames"])))
    assert vectors == (row["vectors"] == "yes")


@pytest.mark.skipif(not ROWS, reason="OV_SHARED_DATA is not set: no real video to read")
def test_the_real_video_has_its_487_frames(shared_data: Path) -> None:
    (path,) = (shared_data / "demo" / "videos").glob("*.mp4")
    with open_video(path) as video:
        assert (len(video), video.info.width, video.info.height) == (487, 360, 640)
        assert (video.info.codec, video.info.rotation, video.info.color_space) == ("h264", 0, "bt709")
        assert [i for i, _ in video.frames([0, 7, 15, 478, 486])] == [0, 7, 15, 478, 486]
