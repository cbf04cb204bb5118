"""`ov report` without a browser: what is on the page, what is left out and said to be, what it is made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ov_model.errors import UsageError
from ov_model.lake.files import write_json
from ov_model.lake.layout import META_SUFFIX
from ov_model.report.page import ReportOptions, make_report, write_report
from tests.lake.lanes import make_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake(tmp_path_factory.mktemp("lake"))


def test_the_page_is_whole_in_itself_and_says_what_it_leaves_out(lake: Path) -> None:
    page = make_report(lake, ReportOptions(samples=1, failures=1))
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert page.count("<article") == 1
    assert page.count("data:image/jpeg") == 1
    assert "clips/visidx, signal residual: 1 of 4 samples shown" in page
    assert set(re.findall(r'<tr data-dataset="clips" data-reason="(\w+)"', page)) == {"empty_file", "missing_file"}
    assert "<b>clips</b>" not in page
    assert all(f"<td>{stage}</td>" in page for stage in ("raw_videos", "visidx", "mosaics", "training_jsonl"))


def test_as_many_pictures_as_allowed(lake: Path) -> None:
    assert make_report(lake, ReportOptions(samples=4, at_most=2)).count("<article") == 2
    assert make_report(lake, ReportOptions(samples=0)).count("<article") == 0
    with pytest.raises(UsageError, match="--samples is -1"):
        ReportOptions(samples=-1)


@pytest.mark.parametrize("part", [".", "clips"])
def test_a_lake_and_one_dataset_of_it_give_the_same_samples(lake: Path, part: str) -> None:
    assert make_report(lake / part, ReportOptions(samples=2)).count("data:image/jpeg") == 2


def test_a_sample_whose_files_changed_is_told_not_raised(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    meta = next((lake / "clips" / "visidx").glob(f"sample_clip0__*{META_SUFFIX}"))
    write_json(meta, {"sample_id": "clip0"})
    (tmp_path / "clip1.mp4").unlink()
    page = make_report(lake, ReportOptions(samples=4))
    assert page.count("cannot be drawn") == 2
    assert page.count("data:image/jpeg") == 2


def test_a_folder_without_ledgers_or_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger below it"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
