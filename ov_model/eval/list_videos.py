"""List the videos that a benchmark's questions hand over: python -m ov_model.eval.list_videos NAME HOME OUT

Its own process, because lmms-eval reads HF_HOME at import and its import is heavy. Writes OUT, JSON lines in the order
of first use; prepare.py starts it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ov_model.errors import OvError
from ov_model.eval.benchmarks import Benchmark, Places, find_benchmark
from ov_model.eval.keys import video_keys
from ov_model.eval.tasks import load_tasks
from ov_model.lake.files import write_bytes


def list_videos(benchmark: Benchmark, home: Path) -> list[dict[str, Any]]:
    """One row for each distinct video: video, key, task, split, doc_id of its first question, n questions, exists."""
    rows: dict[str, dict[str, Any]] = {}
    for name, task in load_tasks(benchmark, home).items():
        split = str(task.config.test_split or task.config.validation_split)
        for doc_id, doc in enumerate(task.eval_docs_no_media):
            for video in _videos(task.doc_to_visual, doc, f"{name} question {doc_id}"):
                row = rows.setdefault(video, {"video": video, "key": "", "task": name, "split": split})
                row.setdefault("doc_id", doc_id)
                row["n"] = row.get("n", 0) + 1
    root = Places(benchmark, home).videos
    for video, key in video_keys(rows, root).items():
        rows[video] |= {"key": key, "exists": os.path.exists(video)}
    return list(rows.values())


def _videos(doc_to_visual: Callable[[Any], Any], doc: Any, what: str) -> list[str]:
    """What a question hands over; one that exits, raises or gives nothing for a missing video says what it sought."""
    try:
        found = doc_to_visual(doc)
    except (Exception, SystemExit):
        found = None
    if not found:
        with _all_files_there():
            found = doc_to_visual(doc)
    found = [found] if isinstance(found, str) else list(found)
    if not found or not all(isinstance(video, str) for video in found):
        raise OvError(f"{what}: lmms-eval hands over {found!r}, not paths of videos")
    return [os.path.abspath(video) for video in found]


@contextmanager
def _all_files_there() -> Iterator[None]:
    real = os.path.exists
    os.path.exists = lambda path: True
    try:
        yield
    finally:
        os.path.exists = real


def main(name: str, home: str, out: str) -> None:
    """Write the list."""
    rows = list_videos(find_benchmark(name), Path(home))
    write_bytes(Path(out), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
