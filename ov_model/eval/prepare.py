"""Preparation of a benchmark: may we have it, is there room, download, unpack, list the videos of its questions.

Whatever was done stays done: the revision is pinned at the first call, a cut one goes on where it stopped, and one that
finds all there touches nothing. Files lie at `Places`; lmms-eval's own cache of the hub is left alone.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ov_model.errors import OvError, UsageError
from ov_model.eval.archives import ArchiveError, DiskFull, extract, group_archives
from ov_model.eval.benchmarks import Benchmark, Places
from ov_model.eval.hub import RETRIES, WAIT, Hub, HubError, RemoteFile, Repository
from ov_model.eval.state import State, has_size
from ov_model.eval.tasks import questions_cache, task_folder
from ov_model.lake.files import hash_file, hash_json, remove_temporaries
from ov_model.lake.lock import ShardLock
from ov_model.lake.progress import ByteProgress

logger = logging.getLogger(__name__)
LOCK = ".prepare.lock"
_DOWNLOADS = 8
_SAVE_EVERY = 200
_LARGE = 256 << 20
_LOG_LINES = 12
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How to prepare.

    Args:
        archives: keep or delete them once unpacked; deleted ones are not downloaded again while their files lie there.
        revision: of the data set [default: the benchmark's, pinned at the first preparation].
        update: look for a newer commit instead of the pinned one.
        token, endpoint: the hub's [default: what huggingface_hub finds].
        retries, wait: tries after a failed request, and seconds before the first of them.
        timeout: seconds that listing the videos may take.
    """

    archives: Literal["keep", "delete"] = "keep"
    revision: str | None = None
    update: bool = False
    token: str | None = None
    endpoint: str | None = None
    retries: int = RETRIES
    wait: float = WAIT
    timeout: float = 3600.0


@dataclass(frozen=True)
class Prepared:
    """A prepared benchmark: its videos, those that its questions name and no archive gave, and what this call did.

    `shared` counts videos whose key is longer than their stem; `downloaded` and `size` (of all videos) are bytes.
    """

    benchmark: Benchmark
    revision: str
    videos: int
    missing: tuple[str, ...]
    shared: int
    size: int
    downloaded: int
    untouched: bool
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """One benchmark of several: prepared, or the error that stopped it."""

    benchmark: Benchmark
    prepared: Prepared | None
    error: OvError | None


def prepare_all(benchmarks: Iterable[Benchmark], home: Path, options: PrepareOptions) -> list[Outcome]:
    """Prepare several benchmarks; one that fails does not stop the others."""
    outcomes = []
    for benchmark in benchmarks:
        try:
            outcomes.append(Outcome(benchmark, prepare(benchmark, home, options), None))
        except OvError as error:
            logger.error("%s", error)
            outcomes.append(Outcome(benchmark, None, error))
        except OSError as error:
            told = OvError(f"{benchmark.name}: {error.filename or 'a file'}: {error.strerror or error}")
            logger.error("%s", told)
            outcomes.append(Outcome(benchmark, None, told))
    return outcomes


def prepare(benchmark: Benchmark, home: Path, options: PrepareOptions) -> Prepared:
    """Prepare one benchmark.

    Raises:
        AccessError: the hub wants a token or accepted terms. HubError: it does not deliver.
        ArchiveError: an archive cannot be unpacked. DiskFull: there is no room.
        LockedError: another process is preparing it.
    """
    home = home.absolute()
    places = Places(benchmark, home)
    started = time.monotonic()
    task_folder(benchmark)
    state = State.read(places.state)
    if benchmark.builder:
        return _build(places, options, started)
    same = not options.update and options.revision in (None, state.asked, state.revision)
    if same and state.intact(places):
        if options.archives == "delete":
            shutil.rmtree(places.archives, ignore_errors=True)
        return _result(places, state, 0, started, untouched=True)
    with ShardLock(places.offline / LOCK):
        state = State.read(places.state)
        downloaded = _Preparation(places, state, options).run(same=same)
    return _result(places, state, downloaded, started, untouched=False)


class _Preparation:
    def __init__(self, places: Places, state: State, options: PrepareOptions) -> None:
        self.places = places
        self.state = state
        self.options = options
        self.hub = Hub(options.token, endpoint=options.endpoint, retries=options.retries, wait=options.wait)
        self.downloaded = 0

    def run(self, *, same: bool) -> int:
        """Do what is not done; returns the bytes downloaded."""
        benchmark, places, state = self.places.benchmark, self.places, self.state
        if places.videos.is_symlink():
            raise UsageError(
                f"{places.videos}: is a link to {os.readlink(places.videos)}, as lmms-eval makes one; nothing is "
                f"written there. Remove the link, or choose another --home: rm {places.videos}"
            )
        asked = self.options.revision or (state.asked if same else "") or benchmark.revision
        repository = self.hub.repository(benchmark, state.revision if same and state.revision else asked)
        data = repository.select(benchmark.data_files)
        packed = repository.select(benchmark.archives)
        media = repository.select(benchmark.media, but=(*benchmark.data_files, *benchmark.archives))
        if not data or not (packed or media):
            raise HubError(
                f"{benchmark.name}: {repository.name} at {repository.commit[:12]} holds "
                f"{len(data)} data files, {len(packed)} archives and {len(media)} videos; expected some of both. "
                "Is the revision right (--revision)?"
            )
        self._check_room(data, packed, media)
        for folder in (places.offline, places.videos):
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporaries(folder, deep=folder == places.videos)
        state.repository, state.asked, state.revision = repository.name, asked, repository.commit
        state.complete = False
        self._save()
        self._fetch(repository, data, places.dataset)
        self._remove_stale(data)
        shutil.rmtree(questions_cache(places), ignore_errors=True)
        self._unpack(repository, packed)
        self._fetch(repository, media, places.videos)
        state.media = {file.path: file.size for file in media}
        self._save()
        list_videos(places, self.options.timeout)
        count_videos(places, state)
        members = sum(size for archive in state.archives.values() for _, size in archive["members"])
        state.size = members + sum(state.media.values())
        if self.options.archives == "delete":
            shutil.rmtree(places.archives, ignore_errors=True)
        state.complete = True
        self._save()
        return self.downloaded

    def _save(self) -> None:
        self.state.write(self.places.state)

    def _has(self, file: RemoteFile, folder: Path) -> bool:
        return self.state.files.get(file.path) == [file.oid, file.size] and has_size(folder / file.path, file.size)

    def _fetch(self, repository: Repository, files: Sequence[RemoteFile], folder: Path) -> None:
        """Download what is not there: small files several at a time, large ones singly, each with all of the line."""
        wanted = [file for file in files if not self._has(file, folder)]
        if not wanted:
            return
        logger.info("%s: downloading %d files, %.1f MB", self.places.benchmark.name, len(wanted), _size(wanted) / 1e6)
        try:
            if max(file.size for file in wanted) > _LARGE:
                for file in wanted:
                    self._arrived(file, self.hub.fetch(repository, file, folder / file.path))
                    self._save()
                return
            pool = ThreadPoolExecutor(min(_DOWNLOADS, len(wanted)))
            running = [(file, pool.submit(self.hub.fetch, repository, file, folder / file.path)) for file in wanted]
            try:
                for done, (file, future) in enumerate(running, 1):
                    self._arrived(file, future.result())
                    if done % _SAVE_EVERY == 0:
                        self._save()
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            pool.shutdown()
        finally:
            self._save()

    def _arrived(self, file: RemoteFile, came: int) -> None:
        self.downloaded += came
        self.state.files[file.path] = [file.oid, file.size]

    def _unpack(self, repository: Repository, packed: Sequence[RemoteFile]) -> None:
        by_path = {file.path: file for file in packed}
        groups = group_archives([file.path for file in packed])
        for name in self.state.archives.keys() - groups.keys():
            self._forget(name)
        taken: set[str] = set()
        for name, paths in groups.items():
            files = [by_path[path] for path in paths]
            oids = {file.path: file.oid for file in files}
            if not self.state.unpacked(name, oids, self.places.videos):
                if name in self.state.archives and self.state.archives[name]["parts"] != oids:
                    self._forget(name)
                self._fetch(repository, files, self.places.archives)
                parts = [self.places.archives / path for path in paths]
                with ByteProgress(f"{self.places.benchmark.name}: unpacking {name}", _size(files)) as bar:
                    members = extract(parts, self.places.videos, taken=taken, progress=bar.advance)
                self.state.archives[name] = {
                    "parts": oids,
                    "members": [[member.path, member.size] for member in members],
                }
                self._save()
                if self.options.archives == "delete":
                    for path in paths:
                        (self.places.archives / path).unlink()
            taken.update(path for path, _ in self.state.archives[name]["members"])

    def _forget(self, name: str) -> None:
        """Remove what an archive of an older revision gave."""
        for path, _ in self.state.archives.pop(name)["members"]:
            (self.places.videos / path).unlink(missing_ok=True)
        self._save()

    def _remove_stale(self, data: Sequence[RemoteFile]) -> None:
        for path in set(self.state.data_files()) - {file.path for file in data}:
            (self.places.dataset / path).unlink(missing_ok=True)
            del self.state.files[path]

    def _check_room(
        self, data: Sequence[RemoteFile], packed: Sequence[RemoteFile], media: Sequence[RemoteFile]
    ) -> None:
        by_path = {file.path: file for file in packed}
        download = _size(file for file in data if not self._has(file, self.places.dataset))
        download += _size(file for file in media if not self._has(file, self.places.videos))
        unpack = largest = archives = 0
        for name, paths in group_archives([file.path for file in packed]).items():
            files = [by_path[path] for path in paths]
            if self.state.unpacked(name, {file.path: file.oid for file in files}, self.places.videos):
                continue
            fresh = _size(file for file in files if not self._has(file, self.places.archives))
            archives += fresh
            largest = max(largest, fresh)
            unpack += _size(files)
        kept = archives if self.options.archives == "keep" else largest
        need = download + kept + unpack
        self.places.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.places.home).free
        if need > free:
            hint = "; --archives delete needs less" if self.options.archives == "keep" and archives > largest else ""
            raise DiskFull(
                f"{self.places.benchmark.name}: {(download + kept) / 1e9:.2f} GB to download and about "
                f"{unpack / 1e9:.2f} GB to unpack, {need / 1e9:.2f} GB together, do not fit at {self.places.home}, "
                f"where {free / 1e9:.2f} GB are free. Nothing was downloaded. "
                f"Free some space or choose another --home{hint}."
            )


def count_videos(places: Places, state: State) -> None:
    """Enter into the state what `<task>_videos.jsonl` lists.

    Raises:
        ArchiveError: nothing.
    """
    rows = [json.loads(line) for line in places.videos_jsonl.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise ArchiveError(f"{places.benchmark.name}: its questions name no video; is the revision right?")
    state.videos = len(rows)
    state.missing = [row["video"] for row in rows if not row["exists"]]
    state.shared = sum(row["key"] not in (Path(row["video"]).stem, Path(row["video"]).name) for row in rows)


def list_videos(places: Places, timeout: float) -> None:
    """Write `<task>_videos.jsonl` in a process whose HF_HOME is the home, offline.

    Raises:
        OvError: lmms-eval does not load the task, with the last lines that it wrote.
    """
    command = [
        sys.executable, "-m", "ov_model.eval.list_videos",
        places.benchmark.name, str(places.home), str(places.videos_jsonl),
    ]  # fmt: skip
    environment = {**os.environ, **_OFFLINE, "HF_HOME": str(places.home)}
    environment.pop("HF_DATASETS_CACHE", None)
    log = places.offline / "list_videos.log"
    try:
        with open(log, "wb") as stream:
            code = subprocess.run(
                command, env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=timeout, check=False
            ).returncode
    except subprocess.TimeoutExpired as error:
        raise OvError(
            f"{places.benchmark.name}: listing its videos took more than {timeout:.0f} s; see {log}"
        ) from error
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise OvError(f"{places.benchmark.name}: lmms-eval cannot list its videos (exit {code}); see {log}:\n{tail}")


def _build(places: Places, options: PrepareOptions, started: float) -> Prepared:
    """Let a benchmark of ours be made; its revision is a hash of its questions."""
    module, _, function = places.benchmark.builder.partition(":")
    with ShardLock(places.offline / LOCK):
        getattr(importlib.import_module(module), function)(places)
        revision = hash_json({path.name: hash_file(path) for path in sorted(places.dataset.iterdir())})[:16]
        state = State.read(places.state)
        untouched = state.complete and state.revision == revision and places.videos_jsonl.is_file()
        if not untouched:
            state = State(repository=places.benchmark.builder, revision=revision)
            list_videos(places, options.timeout)
            count_videos(places, state)
            state.size = sum(path.stat().st_size for path in places.videos.rglob("*") if path.is_file())
            state.complete = True
            state.write(places.state)
    return _result(places, state, 0, started, untouched=untouched)


def _result(places: Places, state: State, downloaded: int, started: float, *, untouched: bool) -> Prepared:
    return Prepared(
        places.benchmark,
        state.revision,
        state.videos,
        tuple(state.missing),
        state.shared,
        state.size,
        downloaded,
        untouched,
        time.monotonic() - started,
    )


def _size(files: Iterable[RemoteFile]) -> int:
    return sum(file.size for file in files)
