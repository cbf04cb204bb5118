"""How steps run, ad-hoc runs from the UI included: each in its own process, forked from a warm server."""

from __future__ import annotations

import dagster as dg


@dg.definitions
def executor() -> dg.Definitions:
    """The executor of every job; steps of one run share the machine, so few at a time."""
    warm = {"forkserver": {"preload_modules": ["dagster", "ov_assets.preload"]}}
    return dg.Definitions(executor=dg.multiprocess_executor.configured({"max_concurrent": 2, "start_method": warm}))
