"""lmms-eval's tasks of a benchmark, fed from the files that its preparation laid down; nothing is downloaded.

lmms-eval's task modules read HF_HOME when they are imported: load them in a process whose HF_HOME is the home.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ov_model.errors import OvError
from ov_model.eval.benchmarks import Benchmark, Places
from ov_model.extras import MissingExtra, require
from ov_model.lake.files import hash_json

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.tasks import TaskManager


def task_folder(benchmark: Benchmark) -> Path:
    """Folder of a benchmark's task files.

    Raises:
        OvError: the installed lmms-eval has none.
    """
    require("eval", "lmms_eval")
    spec = importlib.util.find_spec("lmms_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "tasks" / benchmark.tasks_path
    if not folder.is_dir():
        raise OvError(f"{benchmark.name}: no folder {folder}; the installed lmms-eval lacks the task: install 0.7.3")
    return folder


def task_config(benchmark: Benchmark, home: Path) -> dict[str, Any]:
    """What to hand to `simple_evaluate(tasks=[...])`: the task, its data read from the home.

    The task's own dataset_kwargs make lmms-eval ask the hub for the videos, or put a link in their place: replaced. The
    cache of `datasets` knows a folder by its last name only, so each state of each benchmark's files has its own.
    """
    if not benchmark.registered:
        return {"task": benchmark.task}
    places = Places(benchmark, home.absolute())
    files = sorted(path for path in places.dataset.rglob("*") if path.is_file())
    found = [(str(path.relative_to(places.dataset)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if not found:
        raise OvError(
            f"{benchmark.name}: no data files at {places.dataset}; run: ov benchmark prepare {benchmark.name}"
        )
    cache = questions_cache(places) / hash_json(found)[:16]
    return {"task": benchmark.task, "dataset_path": str(places.dataset), "dataset_kwargs": {"cache_dir": str(cache)}}


def questions_cache(places: Places) -> Path:
    """Where `datasets` keeps what it read from a benchmark's data files."""
    return places.offline / ".questions"


def task_manager(benchmarks: Sequence[Benchmark]) -> TaskManager:
    """A task manager that knows these benchmarks' folders only: no search through all of lmms-eval's tasks.

    Where one is not registered, that search is made.
    """
    from lmms_eval.tasks import TaskManager

    if not all(benchmark.registered for benchmark in benchmarks):
        return TaskManager()
    return TaskManager(include_path=[f"{task_folder(b)}/" for b in benchmarks], include_defaults=False)


def load_tasks(benchmark: Benchmark, home: Path) -> dict[str, ConfigurableTask]:
    """The benchmark's leaf tasks by name, their questions loaded."""
    with task_imports():
        loaded = task_manager([benchmark]).load_task_or_group([task_config(benchmark, home)])
    return dict(_leaves(loaded))


@contextmanager
def task_imports() -> Iterator[None]:
    """Keep lmms-eval's task modules from what they only want for variants that are not run here.

    LongVideoBench's imports decord for its interleaved variant: where it is not installed, a stand-in that refuses to
    be called. NExT-QA's downloads word lists for its open-ended variant: not while this lasts.
    """
    import nltk

    stand_in = None
    if "decord" not in sys.modules and importlib.util.find_spec("decord") is None:
        stand_in = ModuleType("decord")
        for name in ("VideoReader", "cpu"):
            setattr(stand_in, name, _absent)
        sys.modules["decord"] = stand_in
    download = nltk.download
    nltk.download = _no_download
    try:
        yield
    finally:
        nltk.download = download
        if stand_in is not None:
            sys.modules.pop("decord", None)


def _leaves(loaded: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, task in loaded.items():
        if isinstance(task, dict):
            yield from _leaves(task)
        else:
            yield str(name), task


def _absent(*_: Any, **__: Any) -> Any:
    raise MissingExtra("decord is not installed, and lmms-eval reads this variant's videos with it: pip install decord")


def _no_download(*_: Any, **__: Any) -> bool:
    return False
