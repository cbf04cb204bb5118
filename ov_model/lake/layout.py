"""Every path and file name of the published formats, in one place."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote_to_bytes

from ov_model.errors import UsageError
from ov_model.geometry import Geometry

_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]|^\.|[. ]$|^$")
_ESCAPED = re.compile(r"~[0-9a-fA-F]{16}$")
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.DOTALL | re.IGNORECASE
)
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_UNESCAPED = " !#$&'()+,-.;=@[]^_`{}~"
_MAX_NAME_BYTES = 80
_STAGE1_NAME = re.compile(
    r"^sample_(?P<name>.*)__(?P<h1>[0-9a-f]{8})__(?P<h2>[0-9a-f]{8})"
    r"_T(?P<T>\d+)_square(?P<square>\d+)_p(?P<patch>\d+)_K(?P<K>\d+)\.meta\.json$",
    re.DOTALL,
)
VISIDX_SUFFIX, FRAME_IDS_SUFFIX, META_SUFFIX = ".visidx_thw.npy", ".frame_ids.npy", ".meta.json"
POSITIONS = "positions_thw.npy"
ASSETS_FOLDER = "assets"
ASSET_MOSAIC = "mosaic_{:03d}.jpg"
VISIBLE_INDICES, FRAME_IDS, ASSET_META = "visible_indices.npy", "frame_ids.npy", "meta.json"
_MAX_KEY_BYTES = 255


@dataclass(frozen=True, order=True)
class Shard:
    """One part of a dataset: `index` of `count`."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"shard {self.index} of {self.count}: the index must lie in 0..{self.count - 1}")

    @property
    def key(self) -> str:
        """`shard00of08`, as in the published file names."""
        return f"shard{self.index:02d}of{self.count:02d}"

    @classmethod
    def parse(cls, key: str) -> Shard:
        """Inverse of `key`."""
        match = re.fullmatch(r"shard(\d+)of(\d+)", key)
        if match is None:
            raise UsageError(f"{key!r} is not a shard; expected a name like shard00of04")
        return cls(int(match[1]), int(match[2]))


def short_sha1(text: str) -> str:
    """First 8 hexadecimal digits of the SHA-1 of a text."""
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]


def sample_key(media: str, sample_id: str, row: int) -> str:
    """`media|id|row`: what names a sample and decides its shard."""
    return f"{media}|{sample_id}|{row}"


def shard_of(key: str, num_shards: int) -> int:
    """The published assignment: first 8 hex digits of sha1(key), modulo the number of shards."""
    return int(short_sha1(key), 16) % num_shards


def is_ordinary(text: str) -> bool:
    """Whether a text can stand in a file name as it is, and means one thing on every file system.

    Not so: separators, control, invisible and bidirectional characters, a form that file systems normalize (not NFC), a
    dot in front, a dot or space at the end, names that Windows reserves, and what looks like an escaped name.
    """
    if _UNSAFE.search(text) or _RESERVED.fullmatch(text) or _ESCAPED.search(text):
        return False
    if text.isascii():
        return True
    visible = not any(unicodedata.category(char) in _INVISIBLE for char in text)
    return visible and unicodedata.is_normalized("NFC", text) and not _ESCAPED.search(file_identity(text))


def safe_name(text: str, max_bytes: int = _MAX_NAME_BYTES) -> str:
    """A text as part of a file name. Ordinary ones (see `is_ordinary`) of up to `max_bytes` stay as they are.

    All others become `{percent-encoded, cut to length}~{16 hex digits of the text's SHA-1}`: no two texts share a name,
    nor do their names differ in case or Unicode form only. `original_name` is the inverse.
    """
    if is_ordinary(text) and len(text.encode()) <= max_bytes:
        return text
    data = text.encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]
    encoded = quote(data, safe=_UNESCAPED)
    if encoded.startswith(".") or _RESERVED.fullmatch(text):
        encoded = f"%{data[0]:02X}{encoded[1:]}"
    room = max_bytes - len(digest) - 1
    if len(encoded) > room:
        encoded = re.sub(r"%.?$", "", encoded[: room - 1]) + "%"
    return f"{encoded}~{digest}"


def original_name(name: str) -> str | None:
    """The text that `safe_name` gave a name to; None for one cut to length: its meta file has the original."""
    if is_ordinary(name):
        return name
    encoded = name[:-17]
    return None if encoded.endswith("%") else unquote_to_bytes(encoded).decode("utf-8", "surrogatepass")


def file_identity(name: str) -> str:
    """Equal for names that some file system takes for one: that ignores case, or normalizes Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def media_stem(media: str) -> str:
    """File name without folder and last suffix."""
    return PurePosixPath(media).stem


def stage1_prefix(media: str, sample_id: str, row: int, geometry: Geometry, num_rows: int) -> str:
    """File name prefix of a sample's stage-1 files; `num_rows` is the K that was really chosen."""
    return (
        f"sample_{safe_name(sample_id)}__{safe_name(media_stem(media))}__{short_sha1(media)}"
        f"__{short_sha1(sample_key(media, sample_id, row))}"
        f"_T{geometry.sequence_length}_square{geometry.square_size}_p{geometry.patch_size}_K{num_rows}"
    )


def stage1_lookup_name(media: str, sample_id: str) -> str:
    """The part of a stage-1 file name that does not depend on hashes: `{id}__{stem}`."""
    return f"{safe_name(sample_id)}__{safe_name(media_stem(media))}"


def parse_stage1_meta_name(name: str) -> dict[str, str] | None:
    """Fields (name, h1, h2, T, square, patch, K) of a stage-1 meta file's name, None for any other file."""
    match = _STAGE1_NAME.match(name)
    return match.groupdict() if match else None


def pack_folder(media: str, sample_id: str) -> str:
    """Folder name of a sample's mosaics."""
    return f"sample_{safe_name(sample_id)}__{safe_name(media_stem(media))}__{short_sha1(media)}"


def mosaic_name(media: str, index: int) -> str:
    """File name of mosaic `index` (0-based) of a sample."""
    return f"{safe_name(media_stem(media))}_{index:03d}.jpg"


def key_problem(key: str) -> str | None:
    """Why a key cannot name an asset, or None."""
    if not key:
        return "the key is empty"
    try:
        key.encode()
    except UnicodeEncodeError:
        return f"the key {key[:80]!r} is no valid Unicode"
    return None


def key_folder(key: str) -> str:
    """Folder name of a key's asset: the key itself where that is ordinary; its meta file names the key in any case."""
    return safe_name(key, _MAX_KEY_BYTES)


def sharded(path: Path, shard: Shard) -> Path:
    """`x.jsonl` -> `x.jsonl.shard00of08.jsonl`, as the published stage 2 names its parts."""
    return path.with_name(f"{path.name}.{shard.key}.jsonl")


def ledger_path(root: Path, stage: str, shard: Shard) -> Path:
    """Where a stage's ledger of a shard lies."""
    return root / "ledger" / f"{stage}.{shard.key}.parquet"
