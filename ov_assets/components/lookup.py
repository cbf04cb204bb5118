"""What other components of the project make: found by the name of their folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import dagster as dg

from ov_assets.components.benchmark_set import BenchmarkSet
from ov_assets.components.dataset_component import DatasetComponent
from ov_assets.components.lane import Lane
from ov_assets.components.scores import ScoresAttributes
from ov_model.errors import UsageError


@runtime_checkable
class HasBenchmarks(Protocol):
    """A component that defines the project's benchmarks."""

    def benchmark_set(self, name: str) -> BenchmarkSet: ...


@runtime_checkable
class HasScores(Protocol):
    """A component with scores on them."""

    scores: ScoresAttributes


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


def all_components(context: dg.ComponentLoadContext) -> Iterator[tuple[str, dg.Component]]:
    """Every component of the project with its folder's name, in order of names."""
    folders = sorted({path.parent.name for path in context.defs_module_path.rglob("defs.yaml")})
    return ((name, component) for name in folders for component in components_of(context, name))


def find_benchmarks(context: dg.ComponentLoadContext) -> BenchmarkSet | None:
    """The benchmarks of this project; None where it has none.

    Raises:
        UsageError: there are two sets of them.
    """
    found = [(name, component) for name, component in all_components(context) if isinstance(component, HasBenchmarks)]
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise UsageError(f"{names} both define benchmarks; one folder of type Benchmarks holds all of a project's")
    return found[0][1].benchmark_set(found[0][0]) if found else None


def scored_runs(context: dg.ComponentLoadContext) -> list[str]:
    """Names of everything that has scores: training runs and external checkpoints."""
    return [name for name, component in all_components(context) if isinstance(component, HasScores)]


def not_defined(context: dg.ComponentLoadContext, asker: str, kind: str, name: str) -> UsageError:
    """The error of a name that no fitting folder has."""
    there = ", ".join(sorted({path.parent.name for path in context.defs_module_path.rglob("defs.yaml")})) or "none"
    return UsageError(
        f"{asker} names {kind} {name!r}, which is not defined; defined are: {there}. Add "
        f"{context.defs_module_path.name}/{name}/defs.yaml, or correct {context.path.name}/defs.yaml"
    )
