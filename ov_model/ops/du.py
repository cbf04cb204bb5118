"""What a lake takes on disk, by dataset, stage and shard: `ov du LAKE`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ov_model.lake.dataset import TRAINING_JSONL
from ov_model.lake.ledger import OK, read_ledger
from ov_model.lake.progress import Progress
from ov_model.ops.roots import Root, file_size, find_roots

_LOG_EVERY = 10_000
OTHER = "other files"


@dataclass(frozen=True)
class Usage:
    """Files and bytes of one stage's shard. A file of several names counts where it is met first; `shared` are the
    bytes that were counted elsewhere. Of stage `other files`: what is below a root and no ledger names."""

    dataset: str
    stage: str
    shard: str
    samples: int
    files: int
    bytes: int
    shared: int
    missing: int


def usage(lake: Path) -> list[Usage]:
    """Measure every file that a ledger names, the ledgers, and the rest of each root.

    Raises:
        UsageError: no ledger there.
    """
    seen: set[tuple[int, int]] = set()
    return [row for root in find_roots(lake) for row in _of_root(root, seen)]


def _of_root(root: Root, seen: set[tuple[int, int]]) -> Iterator[Usage]:
    named: set[tuple[int, int]] = set()
    ledgers = [ledger for ledger in root.ledgers if ledger.stage != TRAINING_JSONL]
    total = sum(read_ledger(ledger.path, ("status",)).filter(status=OK).height for ledger in ledgers)
    with Progress(f"du {root.name}", total, _LOG_EVERY) as progress:
        for ledger in ledgers:
            files = bytes_ = shared = missing = 0
            rows = read_ledger(ledger.path, ("status", "outputs")).filter(status=OK)
            for outputs in rows["outputs"]:
                for output in outputs:
                    found = file_size(root.path / output)
                    if found is None:
                        missing += 1
                        continue
                    size, identity = found
                    files += 1
                    bytes_ += 0 if identity in seen else size
                    shared += size if identity in seen else 0
                    seen.add(identity)
                    named.add(identity)
                progress.advance(ok=True)
            yield Usage(root.name, ledger.stage, ledger.shard, rows.height, files, bytes_, shared, missing)
    files = bytes_ = 0
    for folder, _, names in os.walk(root.path):
        for name in names:
            found = file_size(Path(folder, name))
            if found is not None and found[1] not in named:
                files += 1
                bytes_ += 0 if found[1] in seen else found[0]
                seen.add(found[1])
    yield Usage(root.name, OTHER, "", 0, files, bytes_, 0, 0)
