"""`ov eval` on the demo's benchmark: scored with every video a HIT, or refused before the first answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from ov_model.errors import UsageError
from ov_model.eval.benchmarks import Places, find_benchmark
from ov_model.eval.leaderboard import as_table, leaderboard, read_scores
from ov_model.eval.prepare import PrepareOptions, prepare
from ov_model.eval.results import read_rows, read_samples
from ov_model.eval.run import EvalConfig, default_name, evaluate
from tests.eval.commands import ov, small
from tests.eval.models import tiny_checkpoint


def test_the_demo_is_scored_and_a_deleted_mosaic_refused(tmp_path: Path) -> None:
    places = Places(find_benchmark("demo"), tmp_path / "home")
    prepared = prepare(places.benchmark, places.home, PrepareOptions())
    assert (prepared.videos, prepared.missing) == (4, ())
    made = ov(
        "precompute", "--jsonl", places.videos_jsonl, "--out_root", places.offline, "--num_workers", "0", *small()
    )
    assert made.returncode == 0, made.stderr
    checkpoint = tiny_checkpoint(tmp_path / "weights")
    run = (
        "eval",
        "--checkpoint",
        checkpoint,
        "--tasks",
        "ov_demo",
        "--home",
        places.home,
        "--out",
        tmp_path / "scores",
    )

    scored = ov(*run)
    assert scored.returncode == 0, scored.stderr
    folder = Path(scored.stdout.splitlines()[-1])
    headline = read_rows(folder)[0]
    assert (headline.hit, headline.miss, headline.invalid, headline.samples, headline.docs) == (4, 0, 0, 12, 12)
    assert json.loads(headline.signals) == {"reencode": 1, "residual": 3}
    scores = read_samples(folder)
    assert headline.percent == pytest.approx(100 * scores["score"].mean())  # pyright: ignore[reportOperatorIssue]
    assert scores["cluster"].n_unique() == 4
    assert len(list(folder.glob("*_samples_ov_demo.jsonl"))) == len(list(folder.glob("*_results.json"))) == 1
    assert "HIT 4/4" in as_table(leaderboard(read_scores([tmp_path / "scores"]))).rows[0][2]

    (places.assets / "bikes" / "mosaic_001.jpg").unlink()
    answered = sorted((tmp_path / "scores").rglob("answers*.jsonl"))
    refused = ov(*run)
    assert refused.returncode == 1
    assert "ov_demo bikes: miss" in refused.stderr
    assert f"ov precompute --jsonl {places.videos_jsonl}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted((tmp_path / "scores").rglob("answers*.jsonl")) == answered


def config(tmp_path: Path, **changes: object) -> EvalConfig:
    values = {"checkpoint": str(tmp_path), "home": tmp_path, "out": tmp_path / "out", "tasks": ("demo",)}
    return EvalConfig(**values | changes)  # type: ignore[arg-type]


def test_a_benchmark_that_was_not_prepared_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"ov benchmark prepare demo --home {tmp_path}"):
        evaluate(config(tmp_path))


@pytest.mark.parametrize("changes", [{"tasks": ()}, {"batch_size": 0}, {"limit": 0}, {"num_processes": 0}])
def test_options_that_make_no_sense(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        config(tmp_path, **changes)


def test_a_checkpoint_that_is_neither_folder_nor_repository(tmp_path: Path) -> None:
    Places(find_benchmark("demo"), tmp_path).offline.mkdir()
    Places(find_benchmark("demo"), tmp_path).state.write_text("{}")
    with pytest.raises(UsageError, match="no such folder, and not a hub repository"):
        evaluate(config(tmp_path, checkpoint="no folder"))


def test_a_checkpoint_is_called_after_its_run(tmp_path: Path) -> None:
    for path in ("vlm/export", "vlm/checkpoint/0123456789abcdef/export", "vlm"):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        assert default_name(str(tmp_path / path)) == "vlm"
    assert default_name("owner/name") == "owner/name"
