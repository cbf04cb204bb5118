"""Before the first generation: what every document shows, and which videos are HIT, MISS or invalid, on all processes.

Every process sees its own documents; what they find is gathered, so that all agree, raise together and count the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ov_model.errors import OvError, UsageError
from ov_model.eval.asset import INVALID, MISS, AssetFault
from ov_model.eval.keys import video_stem
from ov_model.eval.lookup import HIT, UNREADABLE, Found, Lookup, VideoHashes, assets_hash, one_configuration
from ov_model.eval.missing import refuse
from ov_model.eval.offline import OfflineIndex, Roots, find_roots
from ov_model.eval.questions import Document, Documents, Question, Visual
from ov_model.geometry import Geometry

log = logging.getLogger(__name__)

CODEC, FRAMES = "codec", "frames"
VISUALS, FALLBACKS = (CODEC, FRAMES), ("none", FRAMES)
HASHES = "videos.parquet"
Result = TypeVar("Result")


class Processes(Protocol):
    """The processes of a run."""

    @property
    def rank(self) -> int: ...

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
        ...


@dataclass(frozen=True)
class PreflightOptions:
    """What is to be shown, and where assets are.

    Args:
        home: below which benchmarks are prepared. roots: `assets/` folders; none: found by the tasks' names.
        visual: "codec" needs an asset for every video; "frames" shows plain frames of all, and looks nothing up.
        fallback: "frames" shows plain frames where an asset is missing or invalid, and counts them.
        index_cache: folder of the cached index and the videos' hashes; None keeps none.
        debug: a log line for every video.
    """

    home: Path
    geometry: Geometry
    roots: tuple[Path, ...] = ()
    visual: str = CODEC
    fallback: str = "none"
    accept_unhashed: bool = False
    index_cache: Path | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("visual", VISUALS), ("fallback", FALLBACKS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; use {' or '.join(allowed)}")


class Preflight:
    """Knows what each document shows; `found` and `documents` hold those of all processes."""

    def __init__(self, options: PreflightOptions, processes: Processes) -> None:
        self.options, self.processes = options, processes
        self.documents: dict[Document, tuple[str, str]] = {}
        self.found: dict[tuple[str, str], Found] = {}
        self.lookup: Lookup | None = None
        self.hashes = VideoHashes((), self._hash_cache())
        self.tasks: set[str] = set()
        self._opening = threading.Lock()
        self.seconds = {"index": 0.0, "preflight": 0.0}

    def check(self, questions: Sequence[Question], documents: Documents) -> None:
        """Look at every document of the questions.

        Raises:
            MissingAssets: on every process: a video is not there, or is no HIT and no fallback was asked for.
        """
        start, before = time.perf_counter(), self.seconds["index"]
        shown = self._together(lambda: self._look(questions, documents))
        for part, _ in shown:
            self.documents |= part
        missing = [one for _, part in shown for one in part]
        videos = sorted({(place[0], video) for place, (kind, video) in self.documents.items() if kind == "video"})
        self.found |= {(one.task, one.video): one for one in missing}
        fresh = [one for one in videos if one not in self.found]
        if fresh and self.options.visual == CODEC:
            self._open(sorted({task for task, _ in fresh}))
        own = {(place[0], video) for place, (kind, video) in self._own(questions) if kind == "video"} & set(fresh)
        for found, hashes in self._together(lambda: (self._resolve(sorted(own)), dict(self.hashes.fresh))):
            self.found |= {(one.task, one.video): one for one in found}
            self.hashes.add(hashes)
        self._agree()
        self.seconds["preflight"] += time.perf_counter() - start - (self.seconds["index"] - before)
        self._refuse()

    def shown(self, question: Question) -> tuple[str, str]:
        """Kind of what a question's document shows (video, images, text), and the path of the video."""
        return self.documents[question.document]

    def of(self, question: Question) -> Found:
        """What became of the question's video."""
        return self.found[question.task, self.shown(question)[1]]

    def late(self, question: Question, visual: Visual) -> Found:
        """Look up a video among the documents of a task whose first one shows pictures.

        Raises:
            MissingAssets: it is no HIT, and there is no fallback.
        """
        with self._opening:
            if self.options.visual == CODEC and question.task not in self.tasks:
                self._open_index([question.task])
        video = visual.video or f"document {question.doc_id}"
        found = self._resolve([(question.task, video)])[0]
        if not visual.video:
            found = _unnamed(question, visual)
        self.documents[question.document] = ("video", video)
        self.found[question.task, video] = found
        self._refuse([found])
        return found

    def demote(self, question: Question, fault: AssetFault) -> None:
        """An asset turned out to be damaged when it was read.

        Raises:
            MissingAssets: there is no fallback.
        """
        found = replace(self.of(question), status=fault.status, reason=str(fault))
        log.warning("%s: %s", question.name, fault)
        self.found[found.task, found.video] = found
        self._refuse([found])

    def on_frames(self, found: Found) -> bool:
        """Whether a video is shown as plain frames."""
        return self.options.visual == FRAMES or found.status != HIT

    def report(self) -> dict[str, Any]:
        """Counts per leaf task and in all, missing keys with reasons, roots, signals, configurations."""
        tasks = sorted({place[0] for place in self.documents})
        hits = [one for one in self.found.values() if one.status == HIT]
        bad = [one for one in self.found.values() if one.status in (MISS, INVALID, UNREADABLE)]
        reports = self.lookup.index.reports if self.lookup else ()
        return {
            "visual": self.options.visual,
            "fallback": self.options.fallback,
            "tasks": {task: self._counts({task}) for task in tasks},
            "total": self._counts(set(tasks)),
            "missing": [
                {"task": one.task, "key": one.key, "status": one.status, "video": one.video, "reason": one.reason}
                for one in sorted(bad, key=lambda one: (one.task, one.key))
            ],
            "roots": [{"root": str(one.root), "assets": one.assets, "faulty": one.faulty} for one in reports],
            "signals": dict(sorted(Counter(one.signal for one in hits if one.signal).items())),
            "configurations": dict(sorted(Counter(one.options for one in hits).items())),
            "assets_hash": assets_hash(hits),
        }

    def _counts(self, tasks: set[str]) -> dict[str, int]:
        """hit, miss, invalid, unhashed count videos; docs, frames, images, text count documents."""
        found = {one.video: one for one in self.found.values() if one.task in tasks}.values()
        documents = [(place, *shown) for place, shown in self.documents.items() if place[0] in tasks]
        states = Counter(one.status for one in found)
        kinds = Counter(kind for _, kind, _ in documents)
        frames = sum(
            1 for place, kind, video in documents if kind == "video" and self.on_frames(self.found[place[0], video])
        )
        return {
            "docs": len(documents),
            "videos": len(found),
            "hit": states[HIT],
            "miss": states[MISS] + states[UNREADABLE],
            "invalid": states[INVALID],
            "unhashed": sum(one.unhashed for one in found),
            "frames": frames,
            "images": kinds["images"],
            "text": kinds["text"],
        }

    def _own(self, questions: Sequence[Question]) -> list[tuple[Document, tuple[str, str]]]:
        return [(place, self.documents[place]) for place in {question.document for question in questions}]

    def _look(
        self, questions: Sequence[Question], documents: Documents
    ) -> tuple[dict[Document, tuple[str, str]], list[Found]]:
        """What each document shows. Of a task whose first one shows pictures no other is read before its turn."""
        shown: dict[Document, tuple[str, str]] = {}
        missing: list[Found] = []
        begun: set[str] = set()
        pictures: set[str] = set()
        for question in questions:
            place = question.document
            if place in shown or place in self.documents:
                continue
            if question.task in pictures:
                shown[place] = ("images", "")
                continue
            visual = documents.visual(question)
            if question.task not in begun and visual.kind == "images":
                pictures.add(question.task)
            begun.add(question.task)
            if visual.kind == "video" and not visual.video:
                missing.append(_unnamed(question, visual))
                visual = replace(visual, video=missing[-1].video)
            shown[place] = (visual.kind, visual.video)
        return shown, missing

    def _resolve(self, videos: Sequence[tuple[str, str]]) -> list[Found]:
        if self.options.visual == FRAMES or self.lookup is None:
            return [_as_frames(task, video) for task, video in videos]
        return self.lookup.resolve(videos)

    def _open(self, tasks: Sequence[str]) -> None:
        """Index the roots; the first process builds what the others read from the cache."""
        start = time.perf_counter()
        if not set(tasks) <= self.tasks:
            for turn in (True, False):
                self._together(lambda turn=turn: (self.processes.rank == 0) == turn and self._open_index(tasks))
        self.seconds["index"] += time.perf_counter() - start

    def _open_index(self, tasks: Sequence[str]) -> None:
        options = self.options
        self.tasks |= set(tasks)
        roots = Roots(options.roots, options.roots) if options.roots else find_roots(options.home, sorted(self.tasks))
        index = OfflineIndex.open(roots.taken, cache=options.index_cache)
        self.hashes = VideoHashes(index.roots, self._hash_cache())
        self.lookup = Lookup(index, options.geometry, self.hashes, roots.looked, options.accept_unhashed)
        for report in index.reports:
            log.info("offline root %s: %d assets, %d faulty", report.root, report.assets, report.faulty)
        for (task, key), folders in index.duplicates().items():
            log.warning("key %s of %s stands in several folders: %s", key, task, ", ".join(map(str, folders)))

    def _agree(self) -> None:
        """The same verdict on every process; the first keeps the hashes for the next run."""
        places = sorted(self.found)
        for place, one in zip(places, one_configuration([self.found[place] for place in places]), strict=True):
            self.found[place] = one
            if self.options.debug:
                log.info("%s %s %s %s", one.status.upper(), one.task, one.key, one.folder or one.reason)
        if self.processes.rank == 0:
            try:
                self.hashes.save()
            except OSError as error:
                log.warning("the videos' hashes are not kept: %s", error)

    def _refuse(self, found: Sequence[Found] | None = None) -> None:
        """Raise MissingAssets where a run may not go on."""
        states = list(self.found.values()) if found is None else list(found)
        fatal = [one for one in states if one.status == UNREADABLE]
        if self.options.visual == CODEC and self.options.fallback == "none":
            fatal = [one for one in states if one.status != HIT]
        if fatal:
            raise refuse(fatal, len(states), self.lookup, self.options.home)
        fallen = sum(one.status != HIT for one in states) if self.options.visual == CODEC else 0
        if fallen:
            log.warning("%d of %d videos have no usable asset and are shown as plain frames", fallen, len(states))

    def _together(self, work: Callable[[], Result]) -> list[Result]:
        """Do the work on every process; where one fails, all raise."""
        failure: Exception | None = None
        outcome: tuple[Any, str] = (None, "")
        try:
            outcome = (work(), "")
        except Exception as error:
            failure = error
            outcome = (None, f"{type(error).__name__}: {error}")
        everyone = self.processes.gather(outcome)
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(everyone):
            if message:
                raise OvError(f"process {rank} of the evaluation failed: {message}")
        return [value for value, _ in everyone]

    def _hash_cache(self) -> Path | None:
        return None if self.options.index_cache is None else self.options.index_cache / HASHES


def _unnamed(question: Question, visual: Visual) -> Found:
    """A document whose task could not even name its video."""
    name = f"document {question.doc_id}"
    return Found(question.task, name, name, UNREADABLE, visual.reason or "the task names no video")


def _as_frames(task: str, video: str) -> Found:
    key = video_stem(Path(video))
    if Path(video).exists():
        return Found(task, video, key, FRAMES)
    return Found(task, video, key, UNREADABLE, f"{video}: the video is not there")
