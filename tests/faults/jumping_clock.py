"""`ov` with a wall clock that is off by as many days as a file says, read anew at each look.

CLOCK=days.txt python -m tests.faults.jumping_clock stage1 …

libfaketime does not do: under Python 3.11 it fails time.sleep, whose clock_nanosleep it takes for its own.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from unittest.mock import patch

from ov_model import cli

CLOCK = Path(os.environ.get("CLOCK", "/dev/null"))


def days() -> float:
    """How far off the clock is."""
    return float(CLOCK.read_text() or 0)


class Jumping(datetime):
    """Datetimes whose now is off."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The time as the clock has it."""
        return datetime.now(tz) + timedelta(days=days())


if __name__ == "__main__":
    true = time.time
    with patch("time.time", lambda: true() + 86400 * days()), patch("ov_model.lake.ledger.datetime", Jumping):
        cli.main()
