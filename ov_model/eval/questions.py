"""lmms-eval's requests as questions: what is asked, how it is to be answered, and what the document shows."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ov_model.errors import BadImage, OvError, UsageError
from ov_model.image_files import read_image
from ov_model.lake.files import hash_json

GENERATE, LIKELIHOOD = "generate_until", "loglikelihood"
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
MAX_NEW_TOKENS = 1024
Document = tuple[str, str, int]


class UnsupportedVisual(OvError):
    """A document shows something that the model cannot read."""


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is generated; greedy unless sampling is asked for.

    Args:
        until: texts that end the answer, and are cut off with all that follows.
        top_k: 0 means all tokens.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    until: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> tuple[GenerationOptions, tuple[str, ...]]:
        """From a task's generation_kwargs, and the names among them that cannot be honored.

        A temperature above 0 without do_sample samples; a temperature of 0, or do_sample false, is greedy.

        Raises:
            UsageError: a value out of range.
        """
        values = {name: value for name, value in given.items() if value is not None}
        until = values.pop("until", ())
        until = (until,) if isinstance(until, str) else tuple(until)
        temperature = float(values.pop("temperature", -1.0))
        sample = bool(values.pop("do_sample", temperature > 0)) and temperature != 0
        numbers: dict[str, Any] = {"max_new_tokens": int(values.pop("max_new_tokens", MAX_NEW_TOKENS))}
        numbers["num_beams"] = int(values.pop("num_beams", 1))
        numbers["repetition_penalty"] = float(values.pop("repetition_penalty", 1.0))
        top_p, top_k = float(values.pop("top_p", 1.0)), int(values.pop("top_k", 0))
        if sample:
            numbers |= {"temperature": temperature if temperature > 0 else 1.0, "top_k": top_k}
            numbers["top_p"] = top_p if top_p > 0 else 1.0
        if numbers["max_new_tokens"] < 1 or numbers["num_beams"] < 1:
            raise UsageError(f"generation_kwargs {dict(given)}: max_new_tokens and num_beams must be 1 or more")
        options = cls(do_sample=sample, until=tuple(text for text in until if text), **numbers)
        return options, tuple(sorted(values))


@dataclass(frozen=True, eq=False)
class Question:
    """One request.

    Args:
        number: its place among the requests. repeat: which of several equal requests it is.
        continuation: whose log-probability is asked for; None where an answer is to be generated.
        unknown: generation_kwargs that cannot be honored.
        padding: asked only to keep processes in step; neither counted nor recorded.
    """

    number: int
    task: str
    split: str
    doc_id: int
    idx: int
    repeat: int
    context: str
    doc_to_visual: Callable[[Any], Any] | None
    options: GenerationOptions
    continuation: str | None = None
    unknown: tuple[str, ...] = ()
    padding: bool = False

    @property
    def type(self) -> str:
        return GENERATE if self.continuation is None else LIKELIHOOD

    @property
    def document(self) -> Document:
        return self.task, self.split, self.doc_id

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        return self.type, self.task, self.doc_id, self.idx, self.repeat

    @property
    def name(self) -> str:
        """As errors call it."""
        return f"{self.task} document {self.doc_id}"

    def prompt_hash(self, setting: str) -> str:
        """Hash of what is asked and how; `setting` stands for the checkpoint and what else decides the answer."""
        asked = {"context": self.context, "continuation": self.continuation, "options": asdict(self.options)}
        return hash_json({**asked, "setting": setting})[:32]


def questions_of(requests: Sequence[Any], documents: Documents) -> list[Question]:
    """The requests of `generate_until` or `loglikelihood`, in order."""
    seen: Counter[Any] = Counter()
    found = []
    for number, request in enumerate(requests):
        args = request.args
        likelihood = request.request_type == LIKELIHOOD
        options, unknown = GenerationOptions.parse({} if likelihood else args[1])
        task, split, doc_id = request.task_name, request.metadata.get("split", ""), request.doc_id
        doc_to_visual = None
        if len(args) >= 6:
            doc_to_visual, doc_id, task, split = args[2], args[3], args[4], args[5]
        continuation = None
        if likelihood:
            continuation = args[1] if isinstance(args[1], str) else str(args[1](documents.read(task, split, doc_id)))
        padding = bool((request.metadata or {}).get("__padding_only__"))
        place = (task, doc_id, request.idx, args[0], continuation)
        repeat = 0 if padding else seen[place]
        seen[place] += not padding
        question = Question(
            number, task, split, int(doc_id), int(request.idx), repeat, args[0], doc_to_visual, options, continuation,
            unknown, padding,
        )  # fmt: skip
        found.append(question)
    return found


@dataclass(frozen=True)
class Visual:
    """What a document shows: one video (a file or a folder of frames), pictures, or nothing.

    Args:
        video: path; empty where the task could not name one, and `reason` says why.
    """

    kind: str
    video: str = ""
    images: tuple[Image.Image, ...] = ()
    reason: str = ""


class Documents:
    """Reads documents and what they show, one at a time: datasets and tasks' functions need not be thread-safe."""

    def __init__(self, tasks: Mapping[str, Any]) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()

    def read(self, task: str, split: str, doc_id: int) -> Any:
        return self._tasks[task][split][doc_id]

    def visual(self, question: Question) -> Visual:
        """What the question's document shows.

        Raises:
            UnsupportedVisual: audio, several videos, videos beside pictures, or another type.
        """
        if question.doc_to_visual is None:
            return Visual("text")
        with self._lock:
            try:
                shown = question.doc_to_visual(self.read(*question.document))
            except SystemExit as error:
                return Visual("video", reason=str(error.code))
            except Exception as error:  # whatever a task's own code raises
                raise OvError(f"{question.name}: the task's doc_to_visual failed: {error!r}") from error
        return _visual(_flat(shown), question.name)


def _flat(shown: Any) -> list[Any]:
    if shown is None:
        return []
    if isinstance(shown, (list, tuple)):
        return [part for one in shown for part in _flat(one)]
    return [shown]


def _visual(parts: list[Any], name: str) -> Visual:
    if not parts:
        return Visual("text")
    paths = [part for part in parts if isinstance(part, (str, Path))]
    pictures = [part for part in parts if isinstance(part, Image.Image)]
    if len(paths) + len(pictures) != len(parts):
        other = next(part for part in parts if not isinstance(part, (str, Path, Image.Image)))
        kind = "audio" if isinstance(other, dict) and "array" in other else type(other).__name__
        raise UnsupportedVisual(f"{name} shows {kind}; the model reads one video, pictures, or text alone")
    videos = [str(path) for path in paths if Path(path).suffix.lower() not in PICTURES]
    if not videos:
        return Visual("images", images=tuple(_open(part, name) for part in parts))
    if len(parts) > 1:
        raise UnsupportedVisual(
            f"{name} shows {len(videos)} videos and {len(parts) - len(videos)} pictures; the model reads one video, "
            "pictures, or text alone"
        )
    return Visual("video", video=videos[0])


def _open(part: Any, name: str) -> Image.Image:
    if isinstance(part, Image.Image):
        return part
    try:
        return read_image(part)
    except (OSError, ValueError, BadImage) as error:
        raise UnsupportedVisual(f"{name}: {part} is not a picture that can be read: {error}") from error
