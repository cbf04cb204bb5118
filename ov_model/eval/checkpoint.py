"""Which checkpoint is scored: a folder, or a hub repository at a commit; what it hashes to; what it was trained on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_model.errors import UsageError
from ov_model.lake.files import hash_file, hash_json, write_json
from ov_model.train.export import PROVENANCE

_PARTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.yaml")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Args:
        hash: 16 hex digits over weights, configuration and tokenizer. revision: the hub's commit, "" for a folder.
        signals: signal -> videos of its training data; None where the checkpoint does not say.
    """

    name: str
    folder: Path
    hash: str
    revision: str
    signals: dict[str, int] | None


def find_checkpoint(name: str, revision: str | None = None, cache: Path | None = None) -> Checkpoint:
    """Find a checkpoint; a hub repository is downloaded (safetensors only) at its commit.

    Args:
        cache: JSON file that remembers the hashes of files by size and time.
    Raises:
        UsageError: no such folder or repository, or it holds no weights or no tokenizer.
    """
    folder, commit = Path(name).expanduser(), ""
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(name):
            raise UsageError(f"checkpoint {name}: no such folder, and not a hub repository (owner/name)")
        folder, commit = _download(name, revision)
    elif revision is not None:
        raise UsageError(f"checkpoint {name} is a folder; a revision is for hub repositories")
    wanted = {"*.safetensors": "weights", "config.json": "configuration", "tokenizer*.json": "tokenizer"}
    missing = [f"{what} ({pattern})" for pattern, what in wanted.items() if not any(folder.glob(pattern))]
    if missing:
        raise UsageError(
            f"checkpoint {folder}: no {', '.join(missing)}; give the export of a training run (RUN/export), or "
            "save what is missing there with save_pretrained"
        )
    return Checkpoint(name, folder, _hash(folder, cache), commit, _signals(folder))


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_PARTS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"checkpoint {name}: no such folder, and the hub does not give it ({what}); check the name, the revision "
            f"{revision or 'main'} and `hf auth whoami`"
        ) from error
    return folder, folder.name


def _hash(folder: Path, cache: Path | None) -> str:
    """Over the content of the files that decide an answer; the card and the recipe are not among them."""
    known: dict[str, Any] = json.loads(cache.read_bytes()) if cache is not None and cache.is_file() else {}
    found: dict[str, str] = {}
    for path in sorted({path for pattern in _PARTS for path in folder.glob(pattern)}):
        if path.name not in (PROVENANCE, "recipe.yaml"):
            stat = path.stat()
            key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
            known[key] = found[path.name] = known.get(key) or hash_file(path)
    if cache is not None:
        write_json(cache, known)
    return hash_json(found)[:16]


def _signals(folder: Path) -> dict[str, int] | None:
    path = folder / PROVENANCE
    return json.loads(path.read_bytes()).get("signals") if path.is_file() else None
