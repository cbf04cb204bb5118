"""How steps run, ad-hoc runs from the UI included: as OV_EXECUTOR says, else each in its own process here."""

from __future__ import annotations

import dagster as dg

from ov_assets.executor import engine


@dg.definitions
def executor() -> dg.Definitions:
    """The executor of every job."""
    return dg.Definitions(executor=engine().definition())
