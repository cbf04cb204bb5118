"""Everything that Dagster knows of this project: the components and resources under `defs/`.

    dagster dev                                              # the UI, on http://127.0.0.1:3000
    dagster asset materialize -m ov_assets.definitions --select 'demo/visidx' --partition shard00of02

To add a dataset, add a folder under `defs/` with a `defs.yaml`; its name is the folder's.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from ov_assets.environment import warn_without_dagster_home


@dg.definitions
def defs() -> dg.Definitions:
    """All definitions; one bad `defs.yaml` fails the whole load (`dg check defs` names it)."""
    warn_without_dagster_home()
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
