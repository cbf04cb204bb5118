"""The lmms-eval model: benchmark questions answered on codec mosaics whose every video is known to be HIT or not.

    lmms_eval --model onevision_codec --model_args pretrained=RUN/export,fallback=none --tasks videomme

or `lmms_eval.evaluator.simple_evaluate(model=OneVisionCodec("RUN/export"), tasks=[...])`. Its environment variables are
those of `ov_model.eval.settings.CodecSettings`; an argument wins over them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from lmms_eval.api.model import lmms

from ov_model.codec.video import quiet
from ov_model.errors import SampleError, UsageError
from ov_model.eval.answer import Prompts, generate, likelihoods
from ov_model.eval.asset import AssetFault
from ov_model.eval.checkpoint import Checkpoint, choose_dtype
from ov_model.eval.journal import Entry, Journal
from ov_model.eval.missing import MissingAssets
from ov_model.eval.preflight import CODEC, FRAMES, Preflight, PreflightOptions
from ov_model.eval.questions import GENERATE, Documents, Question, questions_of
from ov_model.eval.settings import CodecSettings, as_flag, as_number, split_roots
from ov_model.eval.visuals import asset_sample, hash_pictures, prefetch, video_sample
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_json, write_json
from ov_model.vlm import VisualSample, text_sample
from ov_model.vlm.preprocess import ANYRES_PINPOINTS, image_sample

__all__ = ["MissingAssets", "OneVisionCodec"]

log = logging.getLogger(__name__)

ADAPTER_VERSION = 1
REFERENCE_HOME = ".huggingface_cache"
INDEX = ".ov_index"
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Shown:
    """What a question's document showed; or, unread, the answer that an earlier run gave to the same."""

    visual: VisualSample
    visual_hash: str = ""
    earlier: Entry | None = None


class OneVisionCodec(lmms):
    """Answers on mosaics of offline assets (or plain frames), on pictures, and on text alone.

    Args:
        pretrained: folder or hub id of a checkpoint; its recipe.yaml names the geometry.
        device: of one process [default: CUDA where there is one]; several take one each.
        dtype: auto (bf16 on CUDA, float32 on a CPU), bf16, float16 or float32.
        use_offline: false is visual=frames.
        offline_root: `assets/` folders joined by ':' or as a list [default: `<task>_offline/assets` below home and
            `.huggingface_cache`].
        visual: codec, or frames: every video as `num_images` plain frames, nothing is looked up.
        fallback: none: a video without a usable asset fails the run before its first generation. frames: it is shown as
            plain frames and counted.
        accept_unhashed: take assets that name no content hash, and count them.
        journal: JSONL of answers, from which a killed run resumes. report: JSON of what was shown.
        home: lmms-eval's home of benchmark data [default: HF_HOME, else .huggingface_cache].
        index_cache: where the cached index lies [default: home/.ov_index].
        model, tokenizer, geometry: instead of a checkpoint's.
        max_length: longest text + visual + new tokens [default: the checkpoint's]; a text's beginning is cut to fit.
        threads: that read and prepare pictures while the model answers.

    Raises:
        UsageError: an argument, a variable or a checkpoint that cannot be honored.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "",
        revision: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        use_offline: bool | str | None = None,
        offline_root: str | Sequence[str | Path] | None = None,
        visual: str | None = None,
        fallback: str = "none",
        accept_unhashed: bool | str = False,
        journal: str | Path | None = None,
        report: str | Path | None = None,
        home: str | Path | None = None,
        index_cache: str | Path | None = None,
        model: Any = None,
        tokenizer: Any = None,
        geometry: Geometry | None = None,
        max_length: int | str | None = None,
        threads: int | str = 2,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if left := {name for name, value in unknown.items() if name != "max_batch_size" or value is not None}:
            raise UsageError(f"the model onevision_codec has no argument {', '.join(sorted(left))}")
        settings = CodecSettings.from_environment(os.environ)
        self.checkpoint = Checkpoint.open(pretrained, revision) if model is None or pretrained else None
        if self.checkpoint is None and tokenizer is None:
            raise UsageError("a model without a checkpoint's folder needs its tokenizer as well")
        quiet()
        self.batch_size = as_number(batch_size, "batch_size")
        self.threads = as_number(threads, "threads")
        asked_length = None if max_length is None else as_number(max_length, "max_length")
        self._start_processes(device)
        self.dtype = choose_dtype(str(dtype), self._device)
        self._given = (model,)
        recipe = None
        if self.checkpoint is None:
            config: dict[str, Any] = cast(Any, model).config.to_dict()
            self._tokenizer = tokenizer
        else:
            config, recipe = self.checkpoint.config, self.checkpoint.geometry
            self._tokenizer = tokenizer if tokenizer is not None else self.checkpoint.tokenizer()
        encoder = config.get("vision_config") or {}
        self.geometry = settings.geometry(recipe, geometry, int(encoder.get("patch_size", Geometry.encoder_patch)))
        self.prompts = Prompts(self._tokenizer, asked_length or _longest(config))
        self.aspect = str(config.get("image_aspect_ratio") or "plain")
        self.pinpoints = [(int(w), int(h)) for w, h in config.get("image_grid_pinpoints") or ANYRES_PINPOINTS]
        base = Path(home or os.environ.get("HF_HOME") or REFERENCE_HOME).expanduser()
        self.options = PreflightOptions(
            home=base,
            geometry=self.geometry,
            roots=_roots(offline_root) or settings.offline_root,
            visual=_visual(visual, use_offline, settings.use_offline),
            fallback=str(fallback),
            accept_unhashed=as_flag(accept_unhashed, "accept_unhashed"),
            index_cache=Path(index_cache) if index_cache else base / INDEX,
            debug=settings.debug,
        )
        self.preflight = Preflight(self.options, self)
        self._journal = Journal(Path(journal), self.rank, self.world_size) if journal else None
        self._report = Path(report) if report else None
        self._seconds = {"load": 0.0, "preprocess": 0.0, "generate": 0.0}
        self._done = {"answers": 0, "reused": 0, "cut": 0, "visual_tokens": 0}
        self._warned: set[str] = set()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def tokenizer_name(self) -> str:
        return str(self._tokenizer.name_or_path)

    @property
    def model(self) -> Any:
        """The model; loaded when first needed, which is after the preflight, and again after `clean`."""
        model = self._given[0]
        if model is not None:
            return model
        if getattr(self, "_model", None) is None:
            assert self.checkpoint is not None
            start = time.perf_counter()
            self._model = self.checkpoint.load(self._device, self.dtype)
            self._seconds["load"] += time.perf_counter() - start
        return self._model

    def use(self, model: Any, journal: Path, report: Path) -> None:
        """Answer with a model that is loaded already and stays the caller's; record answers and what was shown here."""
        self._given = (model,)
        self._journal = Journal(journal, self.rank, self.world_size)
        self._report = report

    def generate_until(self, requests: Any) -> list[str]:
        """An answer to each request, in order."""
        return self._answer(requests)

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether it is the greedy one) for each request, in order."""
        return [(float(value), bool(greedy)) for value, greedy in self._answer(requests)]

    def generate_until_multi_round(self, requests: Any) -> list[str]:
        """Not there: no benchmark of the registry asks in rounds."""
        raise NotImplementedError("onevision_codec answers in one round; take a task of output_type generate_until")

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def _answer(self, requests: Sequence[Any]) -> list[Any]:
        documents = Documents(self.task_dict)
        questions = questions_of(requests, documents)
        for name in {name for question in questions for name in question.unknown} - self._warned:
            self._warned.add(name)
            log.warning("generation_kwargs: %s cannot be honored and is left out", name)
        self.preflight.check(questions, documents)
        self._write_report(finished=False)
        first: dict[Any, Question] = {}
        for question in questions:
            first.setdefault(_repeated(question), question)
        answers = {
            question.number: answer
            for batch in self._batches(list(first.values()), documents)
            for question, answer in batch
        }
        self._write_report(finished=True)
        results = []
        for question, request in zip(questions, requests, strict=True):
            results.append(answers[first[_repeated(question)].number])
            self.cache_hook.add_partial(question.type, request.args[:2], results[-1])
        return results

    def _batches(self, questions: Sequence[Question], documents: Documents) -> Iterator[list[tuple[Question, Any]]]:
        """Batches of questions with their answers.

        What a batch is made of depends on the questions alone: one that an earlier run answered in part is asked whole
        again, so that a resumed run rounds as one that was never interrupted.
        """
        setting = self._setting()
        batches = _chunks(sorted(questions, key=self._order), self.batch_size)
        loaded = prefetch(
            lambda question: self._show(question, documents, setting),
            chain.from_iterable(batches),
            threads=self.threads,
            ahead=self.batch_size + self.threads,
        )
        for batch in batches:
            start = time.perf_counter()
            shown = [one for _, one in islice(loaded, len(batch))]
            earlier = [one.earlier for one in shown if one.earlier is not None]
            known = len(earlier) == len(batch)
            if not known:
                shown = [
                    self._show(q, documents, "") if one.earlier else one for q, one in zip(batch, shown, strict=True)
                ]
            self._seconds["preprocess"] += time.perf_counter() - start
            if known:
                yield [(question, self._count(entry)) for question, entry in zip(batch, earlier, strict=True)]
            else:
                yield self._ask(batch, shown, setting)

    def _ask(self, batch: Sequence[Question], shown: Sequence[Shown], setting: str) -> list[tuple[Question, Any]]:
        model = self.model
        start = time.perf_counter()
        prompted = [self.prompts.build(question, one.visual) for question, one in zip(batch, shown, strict=True)]
        for one in prompted:
            if one.cut:
                self._done["cut"] += 1
                log.warning("%s: %d tokens of its text's beginning are cut", one.question.name, one.cut)
        work = generate if batch[0].type == GENERATE else likelihoods
        answers = work(model, self.prompts, prompted)
        self._seconds["generate"] += time.perf_counter() - start
        entries = [
            Entry(*q.key, q.prompt_hash(setting), one.visual_hash, answer, one.visual.kind, one.visual.num_tokens)
            for q, one, answer in zip(batch, shown, answers, strict=True)
            if not q.padding
        ]
        if self._journal is not None:
            self._journal.append(entries)
        for entry in entries:
            self._count(entry, reused=False)
        return list(zip(batch, answers, strict=True))

    def _show(self, question: Question, documents: Documents, setting: str) -> Shown:
        """Read what a question's document shows, unless the journal has the answer to the same.

        Args:
            setting: as in `_setting`; empty: the journal is not asked.
        """
        asked = self._journal if setting else None
        earlier = None if asked is None else asked.find(question.key, question.prompt_hash(setting))

        def shown(identity: str, read: Callable[[], VisualSample]) -> Shown:
            if earlier is not None and earlier.visual_hash == identity:
                return Shown(text_sample(name), identity, earlier)
            return Shown(read(), identity)

        name, geometry = question.name, self.geometry
        kind, video = self.preflight.shown(question)
        try:
            if kind == "images":
                visual = documents.visual(question)
                kind, images, aspect = visual.kind, visual.images, cast(Any, self.aspect)
                if images:
                    read = partial(image_sample, images, geometry, name, aspect, self.pinpoints)
                    return shown(hash_pictures(images), read)
                if kind == "video":
                    video = self.preflight.late(question, visual).video
            if kind != "video":
                return shown("", partial(text_sample, name))
            found = self.preflight.of(question)
            if not self.preflight.on_frames(found):
                try:
                    return shown(found.identity, partial(asset_sample, Path(found.folder), geometry, name))
                except AssetFault as fault:
                    self.preflight.demote(question, fault)
            identity = f"frames {self.preflight.hashes(Path(video))}"
            return shown(identity, partial(video_sample, Path(video), geometry, name))
        except SampleError as error:
            raise type(error)(f"{name}: {error}") from error

    def _order(self, question: Question) -> tuple[Any, ...]:
        """Like beside like: options, then kind, then length, the longest first."""
        kind, _ = self.preflight.shown(question)
        options = hash_json(repr((question.type, question.options)))
        return options, kind, -len(question.context), question.number

    def _count(self, entry: Entry, *, reused: bool = True) -> Any:
        """The entry's answer, counted."""
        self._done["answers"] += 1
        self._done["reused"] += reused
        self._done["visual_tokens"] += entry.visual_tokens
        return entry.answer

    def _setting(self) -> str:
        """What else decides an answer: checkpoint, precision, geometry, length, pictures, this code."""
        fingerprint = "" if self.checkpoint is None else self.checkpoint.fingerprint
        pictures = (self.aspect, self.pinpoints, repr(self.geometry))
        return hash_json([ADAPTER_VERSION, fingerprint, str(self.dtype), self.prompts.max_length, pictures])

    def _write_report(self, *, finished: bool) -> None:
        """Gather what every process did; the first writes it."""
        parts = self.gather((self.preflight.found, self.preflight.documents, self._done, self._seconds))
        for found, documents, _, _ in parts:
            self.preflight.documents |= documents
            for place, one in found.items():
                known = self.preflight.found.setdefault(place, one)
                if one.status != known.status and one.reason:
                    self.preflight.found[place] = one
        if self.rank or self._report is None:
            return
        done = {name: sum(part[2][name] for part in parts) for name in self._done}
        answers, tokens = done["answers"], done.pop("visual_tokens")
        seconds = {name: max(part[3][name] for part in parts) for name in self._seconds}
        write_json(
            self._report,
            {
                "finished": finished,
                **self.preflight.report(),
                **done,
                "visual_tokens": tokens / answers if answers else 0.0,
                "seconds": {name: round(value, 3) for name, value in (self.preflight.seconds | seconds).items()},
                "processes": self.world_size,
                "dtype": str(self.dtype).removeprefix("torch."),
                "device": str(self._device),
            },
        )

    def _start_processes(self, device: str | None) -> None:
        """Rank and device, by accelerate where several processes were started."""
        cpu = device is not None and torch.device(device).type == "cpu"
        self.accelerator = Accelerator(cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self._device = self.accelerator.device
        if self._world_size == 1 and device is not None:
            self._device = torch.device(device)


def _repeated(question: Question) -> tuple[Any, ...]:
    """What requests share that have one answer: repetitions of a greedy question, and copies that pad a process."""
    return (*question.key[:4], question.prompt_hash(""), question.options.do_sample and question.repeat)


def _chunks(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Batches of neighbors that share type and options; a sampled question is alone."""
    batches: list[list[Question]] = []
    for question in questions:
        last = batches[-1] if batches else []
        alike = last and (last[0].type, last[0].options) == (question.type, question.options)
        if alike and len(last) < size and not question.options.do_sample:
            last.append(question)
        else:
            batches.append([question])
    return batches


def _longest(config: dict[str, Any]) -> int | None:
    """The least of what the checkpoint was trained for and what its language model has positions for."""
    lengths = [config.get("tokenizer_model_max_length"), config.get("max_position_embeddings")]
    return min((int(length) for length in lengths if length), default=None)


def _roots(given: str | Sequence[str | Path] | None) -> tuple[Path, ...]:
    if given is None:
        return ()
    return split_roots(given) if isinstance(given, str) else tuple(Path(root) for root in given)


def _visual(visual: str | None, use_offline: bool | str | None, variable: bool | None) -> str:
    """What videos are shown as: the argument, else use_offline, else its variable, else mosaics."""
    asked = variable if use_offline is None else as_flag(use_offline, "use_offline")
    by_flag = None if asked is None else CODEC if asked else FRAMES
    if visual is None:
        if by_flag == FRAMES:
            log.warning("USE_OFFLINE is off: every video is shown as plain frames, as with visual=frames")
        return by_flag or CODEC
    if use_offline is not None and by_flag != visual:
        raise UsageError(f"visual={visual} and use_offline={use_offline} contradict each other; give one of them")
    if by_flag not in (None, visual):
        log.warning("visual=%s wins over LLAVA_CODEC_USE_OFFLINE, which says %s", visual, by_flag)
    return str(visual)
