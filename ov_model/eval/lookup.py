"""From a video to its asset: HIT only when the asset was made from these very bytes, with the options of the run."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from ov_model.codec.folder import frame_files
from ov_model.errors import SampleError
from ov_model.eval.asset import INVALID, MISS, AssetFault, check_asset, hash_asset
from ov_model.eval.keys import video_stem
from ov_model.eval.offline import Asset, OfflineIndex, candidate_keys, family
from ov_model.geometry import Geometry
from ov_model.lake.files import atomic_write, hash_json
from ov_model.lake.ledger import read_ledger
from ov_model.lake.media import State, hash_media, known_hashes

log = logging.getLogger(__name__)

HIT = "hit"
UNREADABLE = "unreadable"
_HASHES = {"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "content_hash": pl.String}


@dataclass(frozen=True)
class Found:
    """What became of a video.

    Args:
        status: hit, miss, invalid; or unreadable: the video itself is not there.
        key: of the asset, else the one that was looked for.
        identity: hash of what the model will read of the asset.
    """

    task: str
    video: str
    key: str
    status: str
    reason: str = ""
    folder: str = ""
    identity: str = ""
    unhashed: bool = False
    signal: str = ""
    options: str = ""
    cfg: str = "{}"


class VideoHashes:
    """Content hashes of videos: from the ledgers beside the roots, a cache file, else read now.

    Args:
        cache: Parquet file of hashes that no ledger knows; None keeps none.
    """

    def __init__(self, roots: Sequence[Path] = (), cache: Path | None = None) -> None:
        ledgers = [path for root in roots for path in sorted((root.parent / "ledger").glob("assets.shard*.parquet"))]
        self._known: dict[State, str] = known_hashes(read_ledger(path) for path in ledgers)
        self._cache = cache
        if cache is not None and cache.is_file():
            try:
                frame = pl.read_parquet(cache).select(*_HASHES)
            except (OSError, pl.exceptions.PolarsError) as error:
                log.warning("%s: cached hashes are unreadable (%s) and are made anew", cache, error)
            else:
                self._known |= {(path, size, mtime): content for path, size, mtime, content in frame.iter_rows()}
        self.fresh: dict[State, str] = {}
        self._lock = threading.Lock()

    def __call__(self, video: Path) -> str:
        """SHA-256 of a video.

        Raises:
            OSError: it cannot be read. SampleError: a folder without usable frames.
        """
        path = video.resolve()
        state = media_state(path)
        with self._lock:
            known = self._known.get(state)
        if known is None:
            known = hash_media(path)[1]
            with self._lock:
                self._known[state] = self.fresh[state] = known
        return known

    def add(self, fresh: Mapping[State, str]) -> None:
        """Take over what other processes hashed."""
        self.fresh |= fresh
        self._known |= fresh

    def save(self) -> None:
        """Write what was hashed to the cache file."""
        if self._cache is None or not self.fresh:
            return
        rows = [(*state, content) for state, content in {**self._stored(), **self.fresh}.items()]
        with atomic_write(self._cache) as stream:
            pl.DataFrame(rows, schema=_HASHES, orient="row").write_parquet(stream)

    def _stored(self) -> dict[State, str]:
        if self._cache is None or not self._cache.is_file():
            return {}
        try:
            frame = pl.read_parquet(self._cache).select(*_HASHES)
        except (OSError, pl.exceptions.PolarsError):
            return {}
        return {(path, size, mtime): content for path, size, mtime, content in frame.iter_rows()}


def media_state(path: Path) -> State:
    """(path, bytes, newest modification time) of a file, or of a folder of frames; as ledgers record them."""
    stats = [frame.stat() for frame in frame_files(path)] if path.is_dir() else []
    newest = max(stat.st_mtime_ns for stat in [*stats, path.stat()])
    return str(path), sum(stat.st_size for stat in stats or [path.stat()]), newest


@dataclass(frozen=True)
class Lookup:
    """Finds the assets of videos.

    Args:
        looked: where roots were looked for, as messages name it.
        accept_unhashed: take assets whose meta names no content hash, as the reference writes them.
    """

    index: OfflineIndex
    geometry: Geometry
    hashes: VideoHashes
    looked: tuple[Path, ...] = ()
    accept_unhashed: bool = False
    threads: int = 4

    def resolve(self, videos: Sequence[tuple[str, str]]) -> list[Found]:
        """What becomes of each (task, path of the video); distinct videos are looked up once."""
        distinct = list(dict.fromkeys(videos))
        with ThreadPoolExecutor(max_workers=self.threads) as pool:
            found = dict(zip(distinct, pool.map(lambda one: self.find(*one), distinct), strict=True))
        return [found[one] for one in videos]

    def find(self, task: str, video: str) -> Found:
        """HIT, MISS or invalid, and why."""
        path = Path(video)
        keys = candidate_keys(path)
        missing = Found(task, video, video_stem(path), MISS)
        if not path.exists():
            return replace(missing, status=UNREADABLE, reason=f"{video}: the video is not there")
        candidates = self.index.find(task, keys)
        if not candidates:
            return replace(missing, reason=f"no asset of key {missing.key}")
        faults: list[Found] = []
        unhashed: list[Asset] = []
        for asset in candidates:
            state = replace(missing, key=asset.key, folder=str(asset.path))
            if not asset.fault and not asset.content_hash:
                unhashed.append(asset)
                continue
            try:
                self._same_video(asset, path)
                return self._hit(asset, state)
            except AssetFault as fault:
                faults.append(replace(state, status=fault.status, reason=str(fault)))
            except (OSError, SampleError) as error:
                return replace(missing, status=UNREADABLE, reason=f"{video}: cannot be read ({error})")
        for asset in unhashed:
            faults.append(self._unhashed(asset, unhashed, replace(missing, key=asset.key, folder=str(asset.path))))
            if faults[-1].status == HIT:
                return faults[-1]
        return next((found for found in faults if found.status == MISS), faults[0])

    def _same_video(self, asset: Asset, path: Path) -> None:
        if asset.fault:
            raise AssetFault(asset.fault, asset.status)
        size = media_state(path)[1]
        if asset.size >= 0 and asset.size != size:
            raise AssetFault(f"{asset.path}: made from another video ({asset.size} bytes; {path} has {size})")
        content = self.hashes(path)
        if content != asset.content_hash:
            raise AssetFault(
                f"{asset.path}: made from another video (SHA-256 {asset.content_hash[:12]}; {path} has {content[:12]})"
            )

    def _hit(self, asset: Asset, state: Found) -> Found:
        check_asset(asset.path, self.geometry, asset.options)
        identity = hash_asset(asset.path, self.geometry)
        if asset.output_hash and asset.output_hash != identity:
            raise AssetFault(f"{asset.path}: its files are not those that were written; make the asset again")
        return replace(
            state,
            status=HIT,
            identity=identity,
            unhashed=not asset.content_hash,
            signal=asset.signal,
            options=asset.options_hash,
            cfg=asset.cfg,
        )

    def _unhashed(self, asset: Asset, all_of_them: Sequence[Asset], state: Found) -> Found:
        if not self.accept_unhashed:
            reason = f"{asset.path}: names no content hash of its video; --accept_unhashed takes and counts such assets"
            return replace(state, status=INVALID, reason=reason)
        if len(all_of_them) > 1:
            folders = " and ".join(str(one.path) for one in all_of_them)
            return replace(state, status=INVALID, reason=f"{folders}: no content hash tells whose video each is of")
        try:
            return self._hit(asset, state)
        except AssetFault as fault:
            return replace(state, status=fault.status, reason=str(fault))


def one_configuration(found: Sequence[Found]) -> list[Found]:
    """HITs of one benchmark made with other options than most of its HITs become invalid, naming what differs."""
    counts: dict[str, Counter[str]] = {}
    for one in found:
        if one.status == HIT:
            counts.setdefault(family(one.task), Counter())[one.options] += 1
    main = {name: max(counter, key=lambda option: (counter[option], option)) for name, counter in counts.items()}
    samples = {(family(one.task), one.options): one.cfg for one in found if one.status == HIT}
    result = []
    for one in found:
        name = family(one.task)
        if one.status == HIT and one.options != main[name]:
            difference = _difference(one.cfg, samples[name, main[name]])
            reason = f"{one.folder}: made with other options than the other assets of {name}: {difference} "
            reason += f"(configuration {one.options}, theirs {main[name]})"
            one = replace(one, status=INVALID, reason=reason)
        result.append(one)
    return result


def _difference(cfg: str, other: str) -> str:
    mine, theirs = json.loads(cfg), json.loads(other)
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return ", ".join(f"{n} is {mine.get(n)!r}, theirs {theirs.get(n)!r}" for n in names) or "options outside cfg"


def assets_hash(found: Sequence[Found]) -> str:
    """One hash over all HITs: (task, key, what the model reads), whatever their order."""
    return hash_json(sorted({(one.task, one.key, one.identity) for one in found if one.status == HIT}))
