"""Pages whose commands take a minute: what the others are to tests/test_docs.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import SLOW, project, run_page

__all__ = ["project"]


@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.stem)
def test_the_commands_of_a_slow_page_work(page: Path, project: Path) -> None:
    run_page(page, project)
