"""What a score is of: the checkpoint's content and training signals, the questions, the code that scores."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from ov_model.errors import UsageError
from ov_model.lake.files import hash_file, hash_json, write_json
from ov_model.train.export import PROVENANCE

_PARTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.yaml")
_NOT_HASHED = (PROVENANCE, "recipe.yaml")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SOURCES = ("eval", "vlm", "encoder")
_PACKAGES = ("ov-lake", "lmms-eval", "torch", "transformers", "tokenizers", "pillow")


def checkpoint_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint; a hub repository is downloaded at its commit, its weights as safetensors only.

    Raises:
        UsageError: no such folder or repository.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"checkpoint {name} is a folder; a revision is for hub repositories")
        return folder.absolute()
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"checkpoint {name}: no such folder, and not a hub repository (owner/name)")
    return _download(name, revision)


def checkpoint_hash(folder: Path, cache: Path | None = None) -> str:
    """16 hex digits over the files that decide an answer; the card, the recipe and the provenance are not among them.

    Args:
        cache: JSON file that remembers hashes by size and modification time.
    """
    known: dict[str, Any] = json.loads(cache.read_bytes()) if cache is not None and cache.is_file() else {}
    found: dict[str, str] = {}
    for path in sorted({path for pattern in _PARTS for path in folder.glob(pattern)}):
        if path.name not in _NOT_HASHED:
            stat = path.stat()
            key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
            known[key] = found[path.name] = known.get(key) or hash_file(path)
    if cache is not None:
        write_json(cache, known)
    return hash_json(found)[:16]


def training_signals(folder: Path) -> dict[str, int] | None:
    """Signal -> samples of what a checkpoint was trained on; None where it does not say."""
    path = folder / PROVENANCE
    return json.loads(path.read_bytes()).get("signals") if path.is_file() else None


def dataset_hash(folder: Path) -> str:
    """16 hex digits over a benchmark's data files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return hash_json({str(path.relative_to(folder)): hash_file(path) for path in files})[:16]


def code_hash() -> str:
    """16 hex digits over our own sources that decide an answer and the versions of the libraries below them."""
    package = Path(__file__).parents[1]
    files = sorted(path for name in _SOURCES for path in (package / name).rglob("*.py"))
    sources = {str(path.relative_to(package)): hash_file(path) for path in files}
    return hash_json([sources, library_versions()])[:16]


def library_versions() -> dict[str, str]:
    """Versions of what answers and scores."""
    return {name: metadata.version(name) for name in _PACKAGES}


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_PARTS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"checkpoint {name}: no such folder, and the hub does not give it ({what}); check the name, the revision "
            f"{revision or 'main'} and `hf auth whoami`"
        ) from error
