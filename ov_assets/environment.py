"""What the environment says: OV_LAKE (where the lake lies), OV_SCRATCH (where copies of remote files go), OV_EXECUTOR
(what runs the steps), DAGSTER_HOME (whether Dagster remembers), OV_LOG_DAYS.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from ov_model.lake.scratch import default_scratch

PROJECT = Path(__file__).resolve().parents[1]


class NoDagsterHomeWarning(UserWarning):
    """Dagster is about to use a temporary instance."""


def lake_root() -> Path:
    """The folder that holds every dataset of the lake: OV_LAKE, else `lake` in the project."""
    return Path(os.environ.get("OV_LAKE") or PROJECT / "lake").expanduser().absolute()


def log_days() -> int:
    """How many days what steps printed is kept: OV_LOG_DAYS, else 90; 0 keeps it for good.

    Raises:
        ValueError: OV_LOG_DAYS is not a whole number of days.
    """
    text = os.environ.get("OV_LOG_DAYS") or "90"
    if not text.isdecimal():
        raise ValueError(f"OV_LOG_DAYS is {text!r}: expected a whole number of days, 0 to keep logs for good")
    return int(text)


def executor_file() -> Path | None:
    """The file that says which engine runs the steps: OV_EXECUTOR, relative to the project; None where unset."""
    given = os.environ.get("OV_EXECUTOR")
    return PROJECT / Path(given).expanduser() if given else None


def scratch_folder() -> Path:
    """The folder for copies of what is behind URLs: OV_SCRATCH, else one below the system's for temporary files."""
    given = os.environ.get("OV_SCRATCH")
    return Path(given).expanduser().absolute() if given else default_scratch()


def default_dagster_home() -> Path:
    """The project's own instance folder."""
    return PROJECT / "dagster_home"


def warn_without_dagster_home() -> None:
    """Say that runs will be forgotten, and what to do, where DAGSTER_HOME is not set."""
    if not os.environ.get("DAGSTER_HOME"):
        warnings.warn(
            "DAGSTER_HOME is not set: Dagster uses a temporary instance and forgets every run when it ends. "
            f"To keep them: export DAGSTER_HOME={default_dagster_home()}",
            NoDagsterHomeWarning,
            stacklevel=3,
        )
