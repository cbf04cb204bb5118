"""A headless browser, and Dagster's UI on a lake with the demo's data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ov_assets.environment import PROJECT
from tests.browser.browser import Tab
from tests.browser.ui import Ui, dagster_dev, own_environment
from tests.conftest import require_or_skip


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = shutil.which("chromium")
    if found is None:
        require_or_skip("browser", "chromium is not installed: .ci/browser")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: OV_SCREENSHOTS, to look at them, else a temporary folder."""
    asked = os.environ.get("OV_SCREENSHOTS")
    folder = Path(asked) if asked else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def tab(chromium: str, screenshots: Path) -> Iterator[Tab]:
    """A tab of the browser; at the end nothing that it was shown may have failed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require_or_skip("browser", "playwright is not installed: make install EXTRAS=dagster,train,eval,dev")
        raise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = Tab(browser.new_page(viewport={"width": 1500, "height": 950}, device_scale_factor=1), screenshots)
        yield tab
        browser.close()
        assert tab.errors == []


@pytest.fixture(scope="session")
def demo_ui(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI after `make demo` without training."""
    folder = tmp_path_factory.mktemp("ui")
    environment = own_environment(folder)
    made = subprocess.run(
        [sys.executable, "-m", "ov_assets.demo", "--data"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    with dagster_dev(folder, environment) as ui:
        yield ui
