"""The error for videos without a usable asset: which, why, where it was looked, and the commands that mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ov_model.errors import OvError
from ov_model.eval.asset import INVALID, MISS
from ov_model.eval.benchmarks import Places
from ov_model.eval.lookup import UNREADABLE, Found, Lookup
from ov_model.eval.offline import benchmark_of, family
from ov_model.geometry import Geometry

SHOWN = 20


class MissingAssets(OvError):
    """Videos of a benchmark have no usable asset; nothing was generated."""


def refuse(bad: Sequence[Found], videos: int, lookup: Lookup | None, home: Path) -> MissingAssets:
    """The error for some of so many videos: counts, keys, where it was looked, and the commands that mend it."""
    counts = Counter(one.status for one in bad)
    total = ", ".join(f"{counts[status]} {status}" for status in (MISS, INVALID, UNREADABLE) if counts[status])
    lines = [f"{len(bad)} of {videos} videos cannot be shown ({total}); nothing was generated."]
    lines += [f"  {one.task} {one.key}: {one.status}: {one.reason}" for one in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  … and {len(bad) - SHOWN} more")
    if lookup is not None:
        reports = {report.root: report for report in lookup.index.reports}
        places = [f"{root} ({report.assets} assets, {report.faulty} faulty)" for root, report in reports.items()]
        places += [f"{path} (not there)" for path in lookup.looked if path.resolve() not in reports]
        lines.append(f"Looked in: {', '.join(places) or 'no root'}")
    lines.append("To mend it:")
    lines += [f"  {command}" for command in mending(bad, lookup, home)]
    if lookup is not None and any(one.status != UNREADABLE for one in bad):
        lines.append("or score plain frames where an asset is missing: --fallback frames")
    return MissingAssets("\n".join(lines))


def mending(bad: Sequence[Found], lookup: Lookup | None, home: Path) -> list[str]:
    """Commands that make what is missing."""
    commands: dict[str, None] = {}
    for name in dict.fromkeys(family(one.task) for one in bad):
        benchmark = benchmark_of(name)
        states = {one.status for one in bad if family(one.task) == name}
        if UNREADABLE in states:
            commands[f"ov benchmark prepare {name if benchmark is None else benchmark.name}"] = None
        if lookup is not None and states - {UNREADABLE}:
            offline = home / f"{name}_offline" if benchmark is None else Places(benchmark, home).offline
            jsonl = offline / f"{name}_videos.jsonl"
            commands[f"ov precompute --jsonl {jsonl} --out_root {offline}{_options(lookup.geometry)}"] = None
    return list(commands)


def _options(geometry: Geometry) -> str:
    """Options of `ov precompute` that are not its defaults."""
    usual = Geometry()
    names = {"seq_len_frames": "sequence_length", "num_images": "num_images"}
    names |= {"square_size": "square_size", "patch_size": "patch_size"}
    return "".join(
        f" --{option} {getattr(geometry, name)}"
        for option, name in names.items()
        if getattr(geometry, name) != getattr(usual, name)
    )
