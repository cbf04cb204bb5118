"""What a question shows -> what the encoder reads: an asset's mosaics, plain frames, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ov_model.codec.select import sample_frames
from ov_model.codec.video import Video, open_video, rgb, rotate
from ov_model.errors import DamagedVideo
from ov_model.eval.asset import read_mosaics, read_positions
from ov_model.geometry import Geometry
from ov_model.vlm.images import VisualSample
from ov_model.vlm.preprocess import codec_sample, frames_sample

Item = TypeVar("Item")
Result = TypeVar("Result")


def asset_sample(folder: Path, geometry: Geometry, name: str) -> VisualSample:
    """The mosaics of an asset with the positions of their tiles.

    Raises:
        AssetFault: a file is missing or damaged.
    """
    return codec_sample(read_mosaics(folder, geometry), read_positions(folder, geometry), geometry, name)


def video_sample(path: Path, geometry: Geometry, name: str) -> VisualSample:
    """`num_images` frames of a video, evenly spread, exactly those, and the times that match them.

    Raises:
        SampleError: the video cannot be read.
    """
    return frames_sample(read_frames(path, geometry.num_images), geometry, name)


def read_frames(path: Path, count: int) -> list[Image.Image]:
    """Frames trunc(linspace(0, n-1, count)) of a video, in display orientation; a short video repeats some.

    Raises:
        SampleError: the video cannot be read.
    """
    with open_video(path) as video:
        try:
            return _frames(video, count)
        except DamagedVideo:
            video.reindex()
            return _frames(video, count)


def _frames(video: Video, count: int) -> list[Image.Image]:
    wanted = sample_frames(len(video), count).tolist()
    shown = {
        index: Image.fromarray(rotate(rgb(frame), video.info.rotation))
        for index, frame in video.frames(sorted(set(wanted)))
    }
    return [shown[index] for index in wanted]


def hash_pictures(pictures: Sequence[Image.Image]) -> str:
    """SHA-256 over size, mode and pixels of pictures."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.mode}{picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order, worked on in threads at most `ahead` items before they are taken."""
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    waiting: list[tuple[Item, Future[Any]]] = []
    source = iter(items)
    try:
        waiting += [(item, pool.submit(work, item)) for item in islice(source, max(1, ahead))]
        while waiting:
            item, future = waiting.pop(0)
            result = future.result()
            waiting += [(more, pool.submit(work, more)) for more in islice(source, 1)]
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
