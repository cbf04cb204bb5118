"""Evaluation as its users run it: from a hub to scores, all eight benchmarks, and what becomes of the next run."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

import datasets
from PIL import Image

from ov_model.eval.benchmarks import Places, find_benchmark, the_eight
from ov_model.eval.results import REPORT, ScoreRow, read_rows
from tests.eval.commands import ov, small
from tests.eval.fixtures import fixture
from tests.eval.hub import TOKEN, hub
from tests.eval.models import tiny_checkpoint


def test_all_eight_go_from_the_hub_to_scores_with_every_video_a_hit(tmp_path: Path) -> None:
    home, benchmarks = tmp_path / "home", the_eight()
    made = {benchmark.name: fixture(benchmark.name, tmp_path / "clips") for benchmark in benchmarks}
    with hub() as local:
        for entry in made.values():
            local.add(entry)
        prepared = ov("benchmark", "prepare", "all", "--home", home, env=local.environment(home, TOKEN))
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    for benchmark in benchmarks:
        places = Places(benchmark, home)
        options = ("--num_workers", "0", *small())
        done = ov("precompute", "--jsonl", places.videos_jsonl, "--out_root", places.offline, *options)
        assert done.returncode == 0, done.stderr
    checkpoint = tiny_checkpoint(tmp_path / "weights", max_position_embeddings=4096)
    names = ",".join(made)
    options = ("--home", home, "--out", tmp_path / "scores", "--device", "cpu", "--batch_size", "2")
    scored = ov("eval", "--checkpoint", checkpoint, "--tasks", names, *options)
    assert scored.returncode == 0, scored.stderr
    for name, entry in made.items():
        headline = newest(tmp_path / "scores", name)
        assert (headline.hit, headline.miss, headline.invalid) == (entry.videos, 0, 0), name
        assert headline.samples == headline.docs == entry.questions, name
        assert 0 <= headline.percent <= 100
    board = ov("leaderboard", tmp_path / "scores", "--out", tmp_path / "board")
    assert board.returncode == 0, board.stderr
    assert (tmp_path / "board" / "leaderboard.md").read_text().count("HIT") == len(made)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo benchmark, assets and a checkpoint; tests copy it."""
    folder = tmp_path_factory.mktemp("demo")
    places = Places(find_benchmark("demo"), folder / "home")
    assert ov("benchmark", "prepare", "demo", "--home", places.home).returncode == 0
    options = ("--jsonl", places.videos_jsonl, "--out_root", places.offline, "--num_workers", "0")
    assert ov("precompute", *options, *small()).returncode == 0
    tiny_checkpoint(folder / "weights")
    return folder


def score(demo: Path, out: Path, *options: str | Path) -> tuple[int, str]:
    """`ov eval` on the demo: exit code and all that it said."""
    arguments = ("--checkpoint", demo / "weights", "--tasks", "demo", "--home", demo / "home", "--out", out)
    done = ov("eval", *arguments, *options)
    return done.returncode, done.stdout + done.stderr


def newest(out: Path, benchmark: str) -> ScoreRow:
    return read_rows(out / benchmark / "current-codec")[0]


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "demo" / "current-codec" / REPORT).read_bytes())


def test_a_second_run_finds_the_first_and_a_rerun_compares(demo: Path, tmp_path: Path) -> None:
    code, said = score(demo, tmp_path)
    assert code == 0, said
    first = newest(tmp_path, "demo")
    code, said = score(demo, tmp_path)
    assert code == 0, said
    assert "found" in said
    assert newest(tmp_path, "demo") == first
    code, said = score(demo, tmp_path, "--rerun")
    assert code == 0, said
    assert "12 greedy answers, all as before" in said
    assert report(tmp_path)["reproduced"]["equal"]
    assert newest(tmp_path, "demo").run == first.run.replace("/0", "/1")


def test_a_fallback_is_counted_and_its_difference_told(demo: Path, tmp_path: Path) -> None:
    code, said = score(demo, tmp_path)
    assert code == 0, said
    copy = tmp_path / "copy"
    shutil.copytree(demo, copy, symlinks=True)
    lines = (copy / "home" / "ov_demo_offline" / "ov_demo_videos.jsonl").read_text()
    (copy / "home" / "ov_demo_offline" / "ov_demo_videos.jsonl").write_text(lines.replace(str(demo), str(copy)))
    (copy / "home" / "ov_demo_offline" / "assets" / "bikes" / "mosaic_001.jpg").unlink()
    code, said = score(copy, tmp_path)
    assert code == 1
    assert "nothing was generated" in said
    code, said = score(copy, tmp_path, "--fallback", "frames")
    assert code == 3, said
    row = newest(tmp_path, "demo")
    assert (row.hit, row.miss, row.frames) == (3, 1, 3)
    assert "95 % interval" in said
    board = ov("leaderboard", tmp_path)
    assert "† HIT 3/4, MISS 1" in board.stdout


def test_signals_that_training_did_not_have_can_be_refused(demo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo / "weights", copy)
    (copy / "provenance.json").write_text(json.dumps({"signals": {"residual": 5}}))
    arguments = ("--checkpoint", copy, "--tasks", "demo", "--home", demo / "home", "--out", tmp_path / "out")
    done = ov("eval", *arguments, "--require_signal")
    assert done.returncode == 2
    assert "reencode 1, residual 3" in done.stderr
    assert not list((tmp_path / "out").rglob("answers*.jsonl"))


def test_two_processes_give_the_scores_of_one(demo: Path, tmp_path: Path) -> None:
    code, said = score(demo, tmp_path, "--device", "cpu")
    assert code == 0, said
    one = newest(tmp_path, "demo")
    code, said = score(demo, tmp_path, "--device", "cpu", "--num_processes", "2", "--rerun")
    assert code == 0, said
    assert "12 greedy answers, all as before" in said
    assert newest(tmp_path, "demo").percent == one.percent


def test_plain_frames_by_intent_stand_beside(demo: Path, tmp_path: Path) -> None:
    for visual in ("codec", "frames"):
        code, said = score(demo, tmp_path, "--visual", visual)
        assert code == 0, said
    board = ov("leaderboard", tmp_path)
    assert "measured on plain frames" in board.stdout
    assert "codec - frames" in board.stdout


def test_an_image_benchmark_that_is_not_registered_goes_through_the_same_model(tmp_path: Path) -> None:
    rows = [
        {"question": f"What color is shape {n}?", "options": ["red", "blue"], "answer": str(n % 2), "image": picture(n)}
        for n in range(3)
    ]
    checkpoint = tiny_checkpoint(tmp_path / "weights", max_position_embeddings=4096)
    with hub() as local:
        local.put("lmms-lab-encoder/ai2d", {"test-00000-of-00001.parquet": parquet(rows)})
        options = ("--home", tmp_path / "home", "--out", tmp_path / "scores", "--device", "cpu")
        environment = local.environment(tmp_path / "home", TOKEN)
        scored = ov("eval", "--checkpoint", checkpoint, "--tasks", "ai2d", *options, env=environment)
    assert scored.returncode == 0, scored.stderr
    row = newest(tmp_path / "scores", "ai2d")
    assert (row.images, row.hit, row.miss, row.samples) == (3, 0, 0, 3)
    assert row.metric == "exact_match"


def picture(seed: int) -> dict[str, bytes]:
    """A picture as a column of `datasets` holds it."""
    file = io.BytesIO()
    Image.new("RGB", (60 + 20 * seed, 50), (80 * seed, 0, 200)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}  # type: ignore[dict-item]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """A Parquet file whose column `image` is known as pictures."""
    features = datasets.Features(
        question=datasets.Value("string"),
        options=datasets.Sequence(datasets.Value("string")),
        answer=datasets.Value("string"),
        image=datasets.Image(),
    )
    file = io.BytesIO()
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    return file.getvalue()
