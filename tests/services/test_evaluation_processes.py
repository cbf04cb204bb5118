"""Evaluations as processes: killed and resumed, several at once, and found by lmms-eval under their name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.eval.assets import video, write_asset
from tests.eval.models import tiny_checkpoint

ROOT = Path(__file__).parents[2]
DOCUMENTS = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tiny_checkpoint(folder / "checkpoint")
    for number in range(3):
        clip = video(folder / "home" / "bench_video" / f"clip{number}.mp4", seed=number)
        write_asset(folder / "home" / "bench_offline" / "assets", clip.stem, clip)
    return folder


def job(made: Path, out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    clips = [str(made / "home" / "bench_video" / f"clip{number % 3}.mp4") for number in range(DOCUMENTS)]
    documents = [{"visual": [clip], "question": f"What moves? {'Look. ' * n}"} for n, clip in enumerate(clips)]
    documents[-1] = {"visual": [], "question": "Say a word."}
    return {
        "checkpoint": str(made / "checkpoint"),
        "home": str(made / "home"),
        "out": str(out),
        "documents": documents,
    } | changes


def start(given: dict[str, Any], **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "tests.eval.worker", json.dumps(given)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        _, errors = process.communicate(timeout=180)
        if process.returncode > 0:
            raise AssertionError(errors)
    return [process.returncode for process in processes]


def world(given: dict[str, Any], count: int) -> list[subprocess.Popen[str]]:
    """Processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(given, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(count)]


def answers(out: Path) -> dict[int, str]:
    return {int(k): v for path in out.glob("answers.*.json") for k, v in json.loads(path.read_text()).items()}


def test_a_killed_run_resumes_and_two_processes_answer_as_one(made: Path, tmp_path: Path) -> None:
    """Once killed, then resumed with two processes that read what the first one had answered."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    killed = start(job(made, resumed, die_after=3))
    assert finish(start(job(made, whole)), killed) == [0, -9]
    assert finish(*world(job(made, resumed), 2)) == [0, 0]
    assert answers(resumed) == answers(whole)
    assert len(answers(whole)) == DOCUMENTS
    found = json.loads((resumed / "report.json").read_text())
    assert (found["answers"], found["reused"], found["processes"]) == (DOCUMENTS, 3, 2)
    assert found["total"] | {"docs": DOCUMENTS, "videos": 3, "hit": 3, "text": 1} == found["total"]
    assert sorted(path.name for path in resumed.glob("answers*.jsonl")) == [
        "answers.jsonl",
        "answers.rank0.jsonl",
        "answers.rank1.jsonl",
    ]


def test_what_one_process_misses_stops_all(made: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(made / "home", tmp_path / "home"))
    shutil.rmtree(home / "bench_offline" / "assets" / "clip1")
    given = job(made, tmp_path / "out", home=str(home))
    given["documents"] = given["documents"][:2]
    for process in world(given, 2):
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 1
        assert "MissingAssets: 1 of 2 videos" in errors
        assert "clip1: miss" in errors


def test_lmms_eval_finds_the_model_by_its_entry_point(tmp_path: Path) -> None:
    """An installed distribution's metadata, as pip writes it from pyproject.toml."""
    metadata = tmp_path / "ov_lake_test-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ov-lake-test\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[lmms_eval.models]\nov-lake = ov_model.eval.plugin:manifests\n")
    script = (
        "from lmms_eval.models import get_model; import sys;"
        "names = ('onevision_codec', 'llava_ov_encoder', 'ov_codec');"
        "print({get_model(name).__module__ + '.' + get_model(name).__name__ for name in names})"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert found.stdout.strip().splitlines()[-1] == "{'ov_model.eval.adapter.OneVisionCodec'}", found.stderr


def test_the_projects_metadata_names_the_entry_point() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]\nov-lake = "ov_model.eval.plugin:manifests"' in text
