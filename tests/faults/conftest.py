"""Nothing that a test started outlives it, also when it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.processes import Running


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    for run in Running.of_this_test:
        for process in run.alive():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    Running.of_this_test.clear()
