"""`ov report` in a real browser: pictures decode, filters hide, nothing is asked of any network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov_model.report.page import ReportOptions, write_report
from tests.browser.browser import Tab
from tests.lake.lanes import make_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four clips and two that failed, each for its own reason, all through the stages."""
    return make_lake(tmp_path_factory.mktemp("report"))


def visible(tab: Tab, selector: str) -> int:
    return tab.page.locator(f"{selector}:visible").count()


def test_the_page_shows_samples_and_filters_them_without_any_network(lake: Path, tmp_path: Path, tab: Tab) -> None:
    page = tmp_path / "report.html"
    size = write_report(lake, page, ReportOptions(samples=2))
    assert size == page.stat().st_size < 5_000_000
    tab.open(page.as_uri(), "Samples", "Failures")
    pictures = tab.pictures()
    assert len(pictures) >= 5
    assert all(width > 100 and height > 50 for width, height in pictures)
    assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]

    cards, rows = visible(tab, "article"), visible(tab, "tr[data-reason]")
    assert (cards, rows) == (2, 2)
    tab.page.select_option("#reason", "empty_file")
    assert (visible(tab, "article"), visible(tab, "tr[data-reason]")) == (0, 1)
    tab.page.select_option("#reason", "")
    tab.page.fill("#text", "clip0")
    assert (visible(tab, "article"), visible(tab, "tr[data-reason]")) == (1, 0)
    tab.see("1 of 4 samples and failures shown")
    tab.page.fill("#text", "")
    tab.see("Left out of this page", "2 of 4 samples shown")

    frames = tab.page.locator("article img").first
    frames.scroll_into_view_if_needed()
    shot = tmp_path / "frames.png"
    frames.screenshot(path=shot)
    with Image.open(shot) as image:
        seen = np.asarray(image.convert("RGB")).astype(int)
    outline = (np.abs(seen - np.array([255, 176, 32])).max(axis=2) < 100).sum()
    assert outline > 50, "no outline of chosen patches is to be seen"
    tab.shot("report", full=True)


def test_text_of_records_is_shown_as_text(tmp_path: Path, tab: Tab) -> None:
    lake = make_lake(tmp_path, hostile="<img src=x onerror=alert(1)>")
    write_report(lake, tmp_path / "report.html", ReportOptions(samples=0))
    tab.open((tmp_path / "report.html").as_uri(), "<img src=x onerror=alert(1)>")
    assert [url for url in tab.requests if not url.startswith(("data:", "file:"))] == []


def test_the_command_writes_the_page_of_an_output_folder(lake: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "ov_model.cli", "report", str(lake / "clips"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(out))
    assert "clips/visidx" in out.read_text()
