"""A folder of JPEG frames is a video; a folder that is not whole says which frame and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov_model.codec.choose import ChooseOptions, choose_patches
from ov_model.codec.video import open_video, rgb
from ov_model.errors import DecodeError, EmptyFile, MissingFile, SampleError, UnreadableContainer
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_file
from ov_model.lake.media import MediaPolicy, State, examine, hash_media
from tests.factories import make_frames, make_image, make_video, picture


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize("name", ["frames", "a[1]*?{x},y\\~%05d é", "#s;&"])
def test_frames_come_in_the_order_of_their_names(tmp_path: Path, name: str) -> None:
    folder = make_frames(tmp_path / name, 20)
    make_image(tmp_path / "other.jpg")
    (folder / "notes.txt").write_text("no frame")
    with open_video(folder) as video:
        assert (video.info.codec, video.info.width, video.info.height, video.info.fps) == ("mjpeg", 96, 64, 3.0)
        assert len(video) == 20
        found = {i: rgb(frame) for i, frame in video.frames([0, 7, 19])}
    for i, frame in found.items():
        stored = np.asarray(Image.open(folder / f"{i:05d}.jpg").convert("L"), int)
        assert np.abs(np.asarray(Image.fromarray(frame).convert("L"), int) - stored).mean() < 1


def test_a_folder_is_scored_by_reencoding(tmp_path: Path) -> None:
    options = ChooseOptions(geometry=Geometry(8, 2, 64, 16))
    choice = choose_patches(make_frames(tmp_path / "f", 20, suffix=".JPG"), options)
    assert (choice.signal, choice.n_frames, choice.damaged) == ("reencode", 20, False)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (edit("00005.jpg", lambda data: data[:900]), DecodeError, "00005.jpg: is cut off"),
        (edit("00000.jpg", lambda data: b"no picture"), DecodeError, "00000.jpg: begins with b'no p'"),
        (edit("00005.jpg", lambda data: b""), EmptyFile, "00005.jpg: a frame of 0 bytes"),
        (lambda folder: make_image(folder / "00011.jpg", 64, 64), DecodeError, "frame 11 is 64x64"),
        (lambda folder: (folder / "00003.jpg").rename(folder / "00003.jpeg"), UnreadableContainer, "one suffix"),
        (lambda folder: (folder / "00012.jpg").mkdir(), UnreadableContainer, "00012.jpg is no file"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], MissingFile, "without JPEG frames"),
        (lambda folder: (folder / "00012.jpg").symlink_to("gone"), UnreadableContainer, "00012.jpg is no file"),
    ],
)
def test_a_folder_that_is_not_whole(
    tmp_path: Path, change: Callable[[Path], object], error: type[SampleError], said: str
) -> None:
    folder = make_frames(tmp_path / "f")
    change(folder)
    with pytest.raises(error, match=said):
        choose_patches(folder, ChooseOptions(geometry=Geometry(8, 2, 64, 16)))


def test_content_hash_of_a_folder_follows_names_and_bytes(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "v.mp4")
    assert hash_media(clip) == (clip.stat().st_size, hash_file(clip))
    folder = make_frames(tmp_path / "f", 3)
    size, first = hash_media(folder)
    assert size == sum(path.stat().st_size for path in folder.iterdir())
    (folder / "notes.txt").write_text("no frame")
    assert hash_media(folder) == (size, first)
    (folder / "00002.jpg").rename(folder / "00003.jpg")
    renamed = hash_media(folder)[1]
    Image.fromarray(picture("square", 9, 96, 64)).save(folder / "00000.jpg")
    assert len({first, renamed, hash_media(folder)[1]}) == 3


def test_an_unchanged_folder_is_not_read_again_and_a_changed_one_is(tmp_path: Path) -> None:
    folder = make_frames(tmp_path / "f", 3)
    for path in (*folder.iterdir(), folder):
        os.utime(path, ns=(10**18, 10**18))
    policy = MediaPolicy(media_root=tmp_path)

    def look(known: dict[State, str]) -> tuple[tuple[str, int, int], str]:
        found = examine(["f"], policy, known, 1)["f"]
        assert not isinstance(found, SampleError)
        return (str(found.path), found.size, found.mtime_ns), found.content_hash

    key, content = look({})
    assert content == hash_media(folder)[1]
    assert look({key: "known"}) == (key, "known")
    (folder / "00001.jpg").rename(folder / "00009.jpg")
    assert look({key: "known"})[1] == hash_media(folder)[1]


def test_a_frame_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    secret = make_image(tmp_path / "secret.jpg")
    folder = make_frames(tmp_path / "root" / "f", 2)
    (folder / "00002.jpg").symlink_to(secret)
    found = examine(["f"], MediaPolicy(media_root=tmp_path / "root"), {}, 1)["f"]
    assert isinstance(found, SampleError)
    assert found.reason == "outside_root"
