"""Whatever is wrong with a video, reading it ends in one typed error or in exactly the frames that decode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ov_model.codec import decode
from ov_model.codec.video import open_video
from ov_model.errors import DamagedVideo, DecodeError, SampleError
from tests.codec.reading import PYRAMID, decode_ours, decode_plainly, gray_levels, x264
from tests.factories import make_audio, make_video, overwrite, set_fourcc, truncate


@pytest.mark.parametrize("wanted", [[3, 2], [1, 1], [-1], [12]])
def test_frame_numbers_that_make_no_sense_are_refused_at_once(tmp_path: Path, wanted: list[int]) -> None:
    clip = open_video(make_video(tmp_path / "a.mp4", frames=12))
    with pytest.raises(ValueError, match=r"a\.mp4"):
        clip.frames(wanted)
    assert list(clip.frames([])) == []


def test_metadata_of_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = make_video(tmp_path / "latin.mp4")
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"La\xfcf"))
    assert len(open_video(path)) == 12


def test_a_stream_that_appears_in_the_middle_is_passed_over() -> None:
    """PyAV's iteration ends with an IndexError there; what follows must still be read."""

    class Packet:
        size = 1

    class Container:
        parts = iter(([Packet, IndexError, Packet], [Packet, Packet]))

        def demux(self, stream: object) -> Any:
            for part in next(self.parts):
                if part is IndexError:
                    raise IndexError("list index out of range")
                yield part

    assert len(list(decode.read_packets(Container(), None))) == 3  # pyright: ignore[reportArgumentType]


def _not_there(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("This is no video.\n" * 50)


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n")


def _headless(path: Path) -> None:
    truncate(path, 0.6)


def _sound(path: Path) -> None:
    make_audio(path)


def _sound_with_cover(path: Path) -> None:
    make_audio(path, cover=True)


def _unknown_codec(path: Path) -> None:
    set_fourcc(path, b"avc1", b"zzz1")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_not_there, "missing_file"),
        (_folder, "missing_file"),
        (_empty, "empty_file"),
        (_text, "unreadable_container"),
        (_playlist, "unreadable_container"),
        (_headless, "unreadable_container"),
        (_sound, "no_video_stream"),
        (_sound_with_cover, "no_video_stream"),
        (_unknown_codec, "unsupported_codec"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    path = make_video(tmp_path / "spoilt.mp4")
    spoil(path)
    with pytest.raises(SampleError, match=r"spoilt\.mp4") as caught:
        open_video(path)
    assert caught.value.reason == reason


def test_text_with_an_art_suffix_is_no_video(tmp_path: Path) -> None:
    """FFmpeg draws .nfo and .ans files as pictures of their text."""
    path = tmp_path / "notes.nfo"
    path.write_text("Read me.\n" * 40)
    with pytest.raises(SampleError) as caught:
        open_video(path)
    assert caught.value.reason == "unreadable_container"


def test_no_decodable_frame_is_a_decode_error(tmp_path: Path) -> None:
    path = make_video(tmp_path / "dead.mp4", pattern="noise")
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    path.write_bytes(data[:start] + bytes(size) + data[start + size :])
    clip = open_video(path)
    with pytest.raises(DamagedVideo):
        list(clip.frames([0]))
    with pytest.raises(DecodeError, match=r"dead\.mp4"):
        clip.reindex()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_damaged_video_is_indexed_by_what_decodes(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"hurt{suffix}", pattern="noise", frames=40, **x264(PYRAMID))
    overwrite(path, 0.5, path.stat().st_size // 8)
    clip = open_video(path)
    if not clip.damaged:
        with pytest.raises(DamagedVideo):
            list(clip.frames(range(len(clip))))
        clip.reindex()
    assert clip.damaged
    expected = decode_plainly(path)
    assert 0 < len(clip) == len(expected)
    assert decode_ours(clip, range(len(clip))) == list(enumerate(expected))
    some = [0, len(clip) // 2, len(clip) - 1]
    assert decode_ours(clip, some) == [(i, expected[i]) for i in some]


def test_damage_elsewhere_costs_nothing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "tail.mp4", pattern="noise", frames=40, **x264(PYRAMID))
    whole = decode_plainly(path)
    overwrite(path, 0.7, path.stat().st_size // 5)
    clip = open_video(path)
    assert decode_ours(clip, [0, 5, 12]) == [(i, whole[i]) for i in (0, 5, 12)]
    with pytest.raises(DamagedVideo):
        list(clip.frames(range(40)))


def test_times_that_tell_the_wrong_order_are_noticed(tmp_path: Path) -> None:
    """A remux that lost its composition offsets: only the decoder knows the order of display."""
    path = make_video(tmp_path / "noctts.mp4", pattern="gray", frames=30, **x264(PYRAMID))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ctts", b"free").replace(b"edts", b"free"))
    clip = open_video(path)
    assert len(clip) == 30
    assert not clip.damaged
    assert gray_levels(clip, range(30)) == list(range(30))


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=12)
    clip = open_video(path)
    make_video(path, frames=12, seed=5)
    with pytest.raises(DecodeError, match="change"):
        list(clip.frames([0, 11]))
