"""The leaderboard: the newest run of each, what is published and what rests on a fallback marked."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from ov_model.eval.benchmarks import BENCHMARKS
from ov_model.eval.leaderboard import DELTA, MEASURED, PLAIN, PUBLISHED, as_table, leaderboard, read_scores, write_board
from tests.eval.scores import finished, row


def board(tmp_path: Path) -> pl.DataFrame:
    return leaderboard(read_scores([tmp_path]))


def test_the_newest_run_counts(tmp_path: Path) -> None:
    finished(tmp_path, "b", row(percent=40.0, started_at="2026-01-02T00:00:00+00:00"))
    finished(tmp_path, "a", row(percent=50.0, started_at="2026-01-03T00:00:00+00:00"))
    measured = board(tmp_path).filter(kind=MEASURED)
    assert measured["percent"].to_list() == [50.0]


def test_an_unfinished_run_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "report.json").write_text("{}")
    assert board(tmp_path).is_empty()


def test_only_headlines_show(tmp_path: Path) -> None:
    finished(tmp_path, "a", row(percent=50.0), row(percent=10.0, task="part", headline=False))
    assert board(tmp_path).filter(kind=MEASURED)["percent"].to_list() == [50.0]


def test_published_figures_stand_beside_and_are_marked(tmp_path: Path) -> None:
    finished(tmp_path, "a", row(percent=50.0))
    published = board(tmp_path).filter(kind=PUBLISHED)
    assert sorted(published["percent"]) == [49.3, 53.4]
    assert published["source"].str.contains("2602.08683").all()
    known = BENCHMARKS["temporalbench"]
    assert known.published is None
    finished(tmp_path / "t", "a", row(benchmark="temporalbench"))
    assert board(tmp_path / "t").filter(kind=PUBLISHED).is_empty()


def test_codec_against_frames_where_both_exist(tmp_path: Path) -> None:
    finished(tmp_path, "codec", row(percent=55.0))
    finished(tmp_path, "frames", row(percent=50.5, visual="frames", hit=0, frames=9))
    finished(tmp_path, "other", row(checkpoint="alone", percent=1.0))
    kinds = {(r["checkpoint"], r["kind"]): r["percent"] for r in board(tmp_path).iter_rows(named=True)}
    assert kinds["vlm", DELTA] == pytest.approx(4.5)
    assert kinds["vlm", PLAIN] == 50.5
    assert ("alone", DELTA) not in kinds


def test_a_score_with_misses_is_marked(tmp_path: Path) -> None:
    finished(tmp_path, "a", row(percent=50.0, hit=2, miss=1, frames=3))
    finished(tmp_path, "b", row(checkpoint="well", percent=50.0))
    cells = {line[0]: line[2] for line in as_table(board(tmp_path)).rows}
    assert cells["vlm"] == "50.00 † HIT 2/3, MISS 1"
    assert cells["well"] == "50.00 HIT 3/3"


def test_a_limited_run_says_so(tmp_path: Path) -> None:
    finished(tmp_path, "a", row(percent=50.0, samples=2))
    assert "2 of 9 questions" in as_table(board(tmp_path)).rows[0][2]


def test_files_hold_the_same_board(tmp_path: Path) -> None:
    finished(tmp_path, "a", row(percent=50.0))
    finished(tmp_path, "b", row(benchmark="mvbench", percent=60.0, started_at="2026-02-01T00:00:00+00:00"))
    out = tmp_path / "out"
    made = write_board(out, read_scores([tmp_path]))
    assert pl.read_parquet(out / "leaderboard.parquet").equals(made)
    assert pl.read_csv(out / "leaderboard.csv").height == made.height
    lines = (out / "leaderboard.md").read_text().splitlines()
    assert lines[0] == "| checkpoint | kind | videomme | mvbench |"
    assert len(lines) == 2 + len(as_table(made).rows)
    picture = Image.open(io.BytesIO((out / "leaderboard.png").read_bytes()))
    assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
