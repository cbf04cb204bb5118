"""What other components of the project make: found by the name of their folder."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from ov_assets.components.dataset_component import DatasetComponent
from ov_assets.components.lane import Lane
from ov_model.errors import UsageError


def find_lane(context: dg.ComponentLoadContext, asker: str, dataset: str) -> Lane:
    """The lane of a dataset of this project.

    Raises:
        UsageError: no dataset of that name is defined.
    """
    for component in components_of(context, dataset):
        if isinstance(component, DatasetComponent):
            return component.lane(dataset, context.project_root)
    raise not_defined(context, asker, "dataset", dataset)


def components_of(context: dg.ComponentLoadContext, name: str) -> Iterator[dg.Component]:
    """The components of the folder of that name; none where there is no such folder."""
    for path in context.defs_module_path.rglob("defs.yaml"):
        if path.parent.name == name:
            component = context.load_component(path.parent)
            yield from getattr(component, "components", [component])


def not_defined(context: dg.ComponentLoadContext, asker: str, kind: str, name: str) -> UsageError:
    """The error of a name that no fitting folder has."""
    there = ", ".join(sorted({path.parent.name for path in context.defs_module_path.rglob("defs.yaml")})) or "none"
    return UsageError(
        f"{asker} names {kind} {name!r}, which is not defined; defined are: {there}. Add "
        f"{context.defs_module_path.name}/{name}/defs.yaml, or correct {context.path.name}/defs.yaml"
    )
