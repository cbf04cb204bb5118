"""The stages that look at media, as the shard engine sees them: what applies, what identifies, how to share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ov_model.codec.assets import AssetOptions
from ov_model.codec.choose import ChooseOptions
from ov_model.errors import KnownMissing, MissingVisidx, SampleError, StaleVisidx, UsageError
from ov_model.lake.asset_meta import asset_line
from ov_model.lake.conversations import to_images
from ov_model.lake.files import hash_json, json_bytes, link_or_copy, write_json
from ov_model.lake.layout import (
    ASSET_META,
    ASSETS_FOLDER,
    POSITIONS,
    VISIDX_SUFFIX,
    key_folder,
    mosaic_name,
    pack_folder,
    stage1_prefix,
)
from ov_model.lake.ledger import OK, REFERENCE, Row, row_error
from ov_model.lake.media import MediaFile
from ov_model.lake.records import Record
from ov_model.lake.store import LocalStore, Store
from ov_model.lake.work import AssetsTask, MosaicsTask, VisidxTask, stage1_files
from ov_model.mosaic.write import PackOptions, remove_older

RAW_VERSION = 1
VISIDX_VERSION = 1
MOSAICS_VERSION = 1
ASSETS_VERSION = 1
_IDENTITY = ("key", "content_hash", "config_hash", "output_hash")
RAW, VISIDX, MOSAICS, ASSETS = "raw_videos", "visidx", "mosaics", "assets"


class Stage(ABC):
    """What the engine asks of a stage. Outputs are made in `folder`; the ledger names them relative to `root`.

    store: the root itself; where it is remote, `root` is the staging folder, and what is made there is sent on.
    """

    name: str
    version: int
    skippable: tuple[type[SampleError], ...] = ()

    def __init__(self, root: Path | Store, folder: Path, config: Any) -> None:
        self.store: Store = LocalStore(root) if isinstance(root, Path) else root
        self.root, self.folder = self.store.local, folder
        self.config_hash = hash_json({"stage": self.name, "version": self.version, "options": config})[:16]

    def check(self, record: Record) -> None:  # noqa: B027
        """Raise a SampleError for a record that this stage cannot use; most can use all."""

    def upstream(self, record: Record, content_hash: str) -> str:
        """Hash of what an earlier stage made of this record and medium; a SampleError says it made nothing."""
        return ""

    def input_hash(self, record: Record, content_hash: str, upstream: str) -> str:
        """Changes when a sample must be looked at again."""
        return hash_json([record.id, record.media, record.row, content_hash, upstream])[:32]

    def media_key(self, content_hash: str, upstream: str) -> str:
        """Equal for samples whose outputs are the same bytes."""
        return hash_json([content_hash, upstream, self.config_hash])[:32]

    def stands(self, row: Row) -> bool:
        """Whether what a finished row names is there; a look at the first file, `ov verify` looks at all."""
        return not row.outputs or self.store.exists(row.outputs[0])

    def key(self, path: Path) -> str:
        """Key of an output."""
        return path.relative_to(self.root).as_posix()

    @abstractmethod
    def share(self, source: Row, record: Record) -> list[Path]:
        """Give `record` the outputs that `source` has already; returns their absolute paths."""


class RawStage(Stage):
    """Is the file there, what is in it, what does it hash to. No outputs but the ledger."""

    name, version = RAW, RAW_VERSION

    def __init__(self, root: Path | Store) -> None:
        super().__init__(root, (root if isinstance(root, Path) else root.local) / "ledger", None)

    def share(self, source: Row, record: Record) -> list[Path]:
        return []


class VisidxStage(Stage):
    """Stage 1: the chosen patches of each video."""

    name, version = VISIDX, VISIDX_VERSION

    def __init__(self, root: Path | Store, folder: Path, options: ChooseOptions) -> None:
        super().__init__(root, folder, asdict(options))
        self.options = options

    def task(self, content_hash: str) -> VisidxTask:
        """What a worker is told."""
        identity = {
            "content_hash": content_hash,
            "config_hash": self.config_hash,
            "stage_version": self.version,
        }
        return VisidxTask(self.folder, self.options, identity)

    def share(self, source: Row, record: Record) -> list[Path]:
        num_rows = json.loads(source.facts)["K"]
        prefix = self.folder / stage1_prefix(record.media, record.id, record.row, self.options.geometry, num_rows)
        targets = stage1_files(prefix)
        for origin, target in zip(source.outputs[:2], targets[:2], strict=True):
            self.store.share(origin, self.key(target))
        meta = json.loads(self.store.read_bytes(source.outputs[2]))
        named = {**meta, "sample_id": record.id, "sample_key": record.key, "video": record.media}
        self.store.write_bytes(self.key(targets[2]), json_bytes(named))
        return targets


@dataclass(frozen=True)
class VisidxRef:
    """Stage-1 files of a sample: prefix of their names, hash of their content, whether frame 0 was kept whole.

    content_hash: of the video they were made from; empty where the reference's tools made them.
    """

    prefix: Path
    hash: str
    first_full: bool
    content_hash: str = ""


class MosaicsStage(Stage):
    """Stage 2: the chosen patches as mosaics. `find` looks a record's stage-1 files up."""

    name, version = MOSAICS, MOSAICS_VERSION

    def __init__(
        self,
        root: Path | Store,
        folder: Path,
        options: PackOptions,
        find: Callable[[Record], VisidxRef],
        *,
        skip_missing: bool = False,
    ) -> None:
        config = {name: value for name, value in asdict(options).items() if name != "first_full"}
        super().__init__(root, folder, config)
        self.options, self.find = options, find
        self.skippable = (MissingVisidx,) if skip_missing else ()

    def check(self, record: Record) -> None:
        if not self.options.export_patches:
            to_images(record, self.options.geometry.num_images)

    def upstream(self, record: Record, content_hash: str) -> str:
        return self.use(self.find(record), content_hash)

    def use(self, ref: VisidxRef, content_hash: str) -> str:
        """Hash of stage-1 files after checking that they are of this video and of what the options ask for."""
        self.check_first_full(ref.first_full, str(ref.prefix))
        if ref.content_hash not in ("", content_hash):
            raise StaleVisidx(f"{ref.prefix}: the video changed since stage 1 chose its patches; run stage 1 again")
        return ref.hash

    def check_first_full(self, first_full: bool, name: str) -> None:
        """Refuse a flag that contradicts what stage 1 did."""
        if self.options.first_full not in (None, first_full):
            did = "kept" if first_full else "did not keep"
            flag = "first_full" if self.options.first_full else "no-first_full"
            raise UsageError(
                f"{name}: stage 1 {did} the first frame whole, which --{flag} contradicts; leave the flag out, or run "
                f"stage 1 with --{'no-' if first_full else ''}keep_first_full_frame"
            )

    def task(self, record: Record, prefix: Path | None) -> MosaicsTask:
        """What a worker is told; no prefix when the same job chooses the patches."""
        return MosaicsTask(self.folder / pack_folder(record.media, record.id), record.media, self.options, prefix)

    def share(self, source: Row, record: Record) -> list[Path]:
        target_folder = self.folder / pack_folder(record.media, record.id)
        targets = []
        for index, output in enumerate(source.outputs):
            origin = PurePosixPath(output)
            if origin.parent.name == "patches":
                target = target_folder / "patches" / origin.name
            elif origin.name == POSITIONS:
                target = target_folder / POSITIONS
            else:
                target = target_folder / mosaic_name(record.media, index)
            self.store.share(output, self.key(target))
            targets.append(target)
        return targets


class AssetsStage(Stage):
    """Offline assets of benchmark videos: mosaics, positions and meta in `assets/{key}`. A record's id is its key."""

    name, version = ASSETS, ASSETS_VERSION
    skippable = (KnownMissing,)

    def __init__(self, root: Path, options: AssetOptions) -> None:
        super().__init__(root, root / ASSETS_FOLDER, asdict(options))
        self.options = options

    def input_hash(self, record: Record, content_hash: str, upstream: str) -> str:
        line = asset_line(record.data) if isinstance(record.data, dict) else None
        return hash_json([super().input_hash(record, content_hash, upstream), line])[:32]

    def task(self, record: Record, media: MediaFile) -> AssetsTask:
        """What a worker is told."""
        identity = {
            "content_hash": media.content_hash,
            "size": media.size,
            "config_hash": self.config_hash,
            "stage_version": self.version,
        }
        return AssetsTask(self.folder / key_folder(record.id), self.options, asset_line(record.data), identity)

    def stands(self, row: Row) -> bool:
        """Every file is there, and the meta file says that they are what the row says: other tools write here too.

        The meta file of an adopted asset says nothing of the sort: it must be the one that was adopted.
        """
        try:
            data = (self.root / row.outputs[-1]).read_bytes()
            meta = json.loads(data)
            found = [meta.get(name) for name in _IDENTITY]
        except (OSError, ValueError, AttributeError):
            return False
        wanted = [row.id, row.content_hash, row.config_hash, row.output_hash]
        adopted = row.signal == REFERENCE and json.loads(row.facts).get("meta_hash") == hashlib.sha256(data).hexdigest()
        return (found == wanted or adopted) and all((self.root / output).exists() for output in row.outputs)

    def share(self, source: Row, record: Record) -> list[Path]:
        target = self.folder / key_folder(record.id)
        made = [self.root / output for output in source.outputs]
        meta = json.loads(made[-1].read_text())
        (target / ASSET_META).unlink(missing_ok=True)
        for origin in made[:-1]:
            link_or_copy(origin, target / origin.name)
        remove_older(target, {path.name for path in made})
        identity = (record.id, source.content_hash, source.config_hash, source.output_hash)
        write_json(
            target / ASSET_META, {**meta, **asset_line(record.data), **dict(zip(_IDENTITY, identity, strict=True))}
        )
        return [target / origin.name for origin in made]


def ref_from_row(row: Row, root: Path) -> VisidxRef:
    """The stage-1 files that a ledger row names."""
    if row.status != OK:
        raise row_error(row)
    prefix = root / row.outputs[0].removesuffix(VISIDX_SUFFIX)
    return VisidxRef(prefix, row.output_hash, bool(json.loads(row.facts)["first_full"]), row.content_hash)
