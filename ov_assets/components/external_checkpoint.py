"""`ExternalCheckpoint`: a checkpoint that was trained elsewhere, and its scores on the project's benchmarks."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from ov_assets.components.lookup import find_benchmarks
from ov_assets.components.scores import ScoresAttributes
from ov_assets.components.step import StepAsset
from ov_assets.environment import lake_root
from ov_assets.evaluation import Source
from ov_assets.inputs import described
from ov_assets.metadata import Product
from ov_assets.previews import plot
from ov_model.errors import UpstreamError, UsageError
from ov_model.extras import require
from ov_model.lake.files import hash_json, write_json
from ov_model.plots import LINE, draw_counts

CHECKPOINT, FOUND = "checkpoint", "checkpoint.json"
CHECKPOINT_VERSION = 1
_LARGEST = 8
_TEXT = "A checkpoint of elsewhere. Materialize it to have a changed folder, or a new commit on the hub, noticed."


@dataclass(frozen=True)
class Foreign:
    """A folder or hub repository, and where what was found of it is written down."""

    name: str
    checkpoint: str
    revision: str | None
    home: Path

    def find(self) -> Product:
        """Hash a folder; download a hub repository at the commit that its revision is now.

        Raises:
            UsageError: there is no such checkpoint, or it is not whole.
        """
        require("eval", "huggingface_hub", "transformers")
        from ov_model.eval.checkpoint import Checkpoint
        from ov_model.eval.identity import checkpoint_folder, checkpoint_hash, training_signals

        folder = Checkpoint.open(str(checkpoint_folder(self.checkpoint, self.revision))).folder
        commit = None if Path(self.checkpoint).is_dir() else folder.name
        version = checkpoint_hash(folder, self.home / "hashes.json")
        write_json(self.home / FOUND, {"checkpoint": self.checkpoint, "revision": commit, "hash": version})
        signals = training_signals(folder)
        files = [path for path in folder.iterdir() if path.is_file()]
        metadata = {
            "work": f"{self.checkpoint} is {version}",
            "files by size": plot(draw_counts(_sizes(files), "MB of the largest files", LINE), "files by size"),
            "checkpoint": self.checkpoint,
            "commit": commit or "a folder, without commits",
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
            "training signals": "not said by the checkpoint" if signals is None else signals,
            "dagster/uri": str(folder),
        }
        return Product(version, metadata)

    def locate(self) -> tuple[str, str | None]:
        """The folder, or the repository with the commit that was found.

        Raises:
            UpstreamError: nobody looked yet.
        """
        if not self.there():
            raise UpstreamError(f"nobody looked for {self.checkpoint} yet; materialize {self.name}/{CHECKPOINT} first")
        pinned = json.loads((self.home / FOUND).read_bytes())
        return pinned["checkpoint"], pinned["revision"]

    def there(self) -> bool:
        """Whether it was found."""
        return (self.home / FOUND).is_file()


def _sizes(files: Sequence[Path]) -> dict[str, float]:
    """MB of the largest files."""
    largest = sorted(files, key=lambda path: -path.stat().st_size)[:_LARGEST]
    return {path.name: path.stat().st_size / 1e6 for path in largest}


class ExternalCheckpoint(dg.Component, dg.Model, dg.Resolvable):
    """A checkpoint named after its folder: `checkpoint` and, where the project has benchmarks, `scores`.

    `checkpoint`: a folder, absolute or relative to the project, or a hub repository (owner/name), whose `revision` is
    looked up each time `checkpoint` is materialized and stays pinned between. `scores`: how it is scored;
    `scores.training_signals` says what it was trained on, where the checkpoint itself does not.
    """

    checkpoint: str
    revision: str | None = None
    scores: ScoresAttributes = ScoresAttributes()
    description: str = ""
    owners: Sequence[str] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        name, project = context.path.name, context.project_root
        foreign = self.foreign(name, project)
        assets = [self.step(foreign).definition()]
        benchmarks = find_benchmarks(context)
        if benchmarks is not None:
            source = self.source(foreign)
            assets.append(self.scores.step(source, benchmarks, project, self.description, self.owners).definition())
        return dg.Definitions(assets=assets)

    def foreign(self, name: str, project: Path) -> Foreign:
        """What is looked for, under `name`.

        Raises:
            UsageError: a name that makes no asset key.
        """
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UsageError(f"checkpoint {name!r}: the folder's name may hold letters, digits and _ only; rename it")
        folder = (project / self.checkpoint).expanduser()
        given = str(folder) if folder.is_dir() else self.checkpoint
        return Foreign(name, given, self.revision, lake_root() / name / CHECKPOINT)

    def source(self, foreign: Foreign) -> Source:
        """The checkpoint as something to score."""
        return Source(foreign.name, dg.AssetKey([foreign.name, CHECKPOINT]), (), foreign.locate)

    def step(self, foreign: Foreign) -> StepAsset:
        """The asset `<name>/checkpoint`."""
        return StepAsset(
            key=dg.AssetKey([foreign.name, CHECKPOINT]),
            description=described(_TEXT, [], self.description),
            deps=[],
            kinds=frozenset({"safetensors"}),
            group=foreign.name,
            code_version=hash_json([CHECKPOINT_VERSION, self.checkpoint, self.revision])[:16],
            columns=None,
            make=lambda context, _: foreign.find(),
            there=lambda _: foreign.there(),
            owners=self.owners,
        )
