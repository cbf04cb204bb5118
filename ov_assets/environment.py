"""What the environment says: where the lake lies (OV_LAKE), whether Dagster remembers (DAGSTER_HOME)."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


class NoDagsterHomeWarning(UserWarning):
    """Dagster is about to use a temporary instance."""


def lake_root() -> Path:
    """The folder that holds every dataset of the lake: OV_LAKE, else `lake` in the project."""
    return Path(os.environ.get("OV_LAKE") or PROJECT / "lake").expanduser().absolute()


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
