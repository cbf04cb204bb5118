"""What a finished run leaves: a folder that `from_pretrained` loads, with its model card.

Full stage: safetensors, config, tokenizer, image processor, mm_projector.bin, recipe.yaml, README.md.
Projector stage: the same without the safetensors, for the other parts are as they were.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from ov_model import __version__
from ov_model.encoder import OneVisionEncoderImageProcessor
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_file, sync_folder, write_bytes, write_json
from ov_model.lake.ledger import OK, read_ledger
from ov_model.lake.stages import MOSAICS
from ov_model.train.recipe import Recipe, dump_recipe

EXPORT, PROVENANCE = "export", "provenance.json"
PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "safetensors")


@dataclass(frozen=True)
class Provenance:
    """What a run was made from.

    Args:
        data: path of the training JSONL; data_hash: SHA-256 of its bytes.
        manifest: what the mixture was made from (content hash of each source), where there is a manifest beside it.
        signals: signal -> samples of the lake's datasets that the data came from; None where there is no ledger to say.
        git_commit: of the code, with "-dirty" where files differ from it; None outside a repository.
    """

    data: str
    data_hash: str
    samples: int
    manifest: dict[str, Any] | None
    signals: dict[str, int] | None
    git_commit: str | None
    versions: dict[str, str]

    @classmethod
    def of(cls, jsonl: Path, data_hash: str, samples: int) -> Provenance:
        """Look it all up."""
        beside = jsonl.with_name(jsonl.name + ".manifest.json")
        manifest = json.loads(beside.read_bytes()) if beside.is_file() else None
        if manifest is not None and manifest.get("data_version") != data_hash:
            manifest = None
        versions = {"python": platform.python_version(), "ov-lake": __version__}
        versions |= {name: metadata.version(name) for name in PACKAGES}
        roots = [jsonl.parent] if manifest is None else [Path(base) for base in manifest.get("bases", {}).values()]
        commit = git_commit(Path(__file__).parent)
        return cls(str(jsonl), data_hash, samples, manifest, count_signals(roots), commit, versions)


def count_signals(roots: Iterable[Path]) -> dict[str, int] | None:
    """Signal -> samples with mosaics in the ledgers of dataset folders; None where none has a ledger.

    A record that a mixture takes twice counts once.
    """
    counts: Counter[str] = Counter()
    found = False
    for root in roots:
        frames = [read_ledger(path) for path in sorted((root / "ledger").glob(f"{MOSAICS}.shard*.parquet"))]
        if frames:
            found = True
            newest = pl.concat(frames).sort("finished_at").unique("key", keep="last").filter(status=OK)
            counts.update(dict(newest["signal"].value_counts().iter_rows()))
    return dict(sorted(counts.items())) if found else None


def git_commit(folder: Path) -> str | None:
    """The commit that a folder's repository is at, "-dirty" where tracked files differ; None where there is none."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def finish_export(
    folder: Path, target: Path, recipe: Recipe, tokenizer: Any, origin: Provenance, metrics: list[dict[str, Any]]
) -> Path:
    """Complete the folder that holds the weights and give it its final name.

    Args:
        folder: temporary, beside `target`, on the same file system.
        metrics: `read_metrics` of the run.
    """
    tokenizer.save_pretrained(folder)
    processor(recipe.data.geometry).save_pretrained(folder)
    write_bytes(folder / "recipe.yaml", dump_recipe(recipe).encode())
    write_json(folder / PROVENANCE, asdict(origin))
    write_bytes(folder / "README.md", model_card(recipe, origin, metrics, _weights(folder)).encode())
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)
    sync_folder(target.parent)
    return target


def processor(geometry: Geometry) -> OneVisionEncoderImageProcessor:
    """The image processor that makes the encoder's input size of this geometry."""
    return OneVisionEncoderImageProcessor(size={"height": geometry.encoder_size, "width": geometry.encoder_size})


def model_card(
    recipe: Recipe, origin: Provenance, metrics: list[dict[str, Any]], weights: dict[str, tuple[int, str]]
) -> str:
    """README.md of an export: what it is, how to load it, and everything needed to make it again."""
    final = metrics[-1] if metrics else {}
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: video-text-to-text",
        "tags: [video, codec, onevision-encoder]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        _purpose(recipe),
        "",
        "```python",
        *_loading(recipe),
        "```",
        "",
        "## Training",
        "",
        f"- steps: {final.get('step', 0)}, final loss: {final.get('loss', float('nan')):.4f}",
        f"- code: {origin.git_commit or 'not under version control'}",
        f"- recipe hash: `{recipe.config_hash}`",
        f"- versions: {', '.join(f'{name} {version}' for name, version in origin.versions.items())}",
        "",
        "## Data",
        "",
        f"- `{Path(origin.data).name}`: {origin.samples} samples, SHA-256 `{origin.data_hash}`",
        *_sources(origin.manifest),
        "",
        "## Files",
        "",
        *(f"- `{name}`: {size:,} bytes, SHA-256 `{digest}`" for name, (size, digest) in weights.items()),
        "",
        "## Recipe",
        "",
        "```yaml",
        dump_recipe(recipe).rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _purpose(recipe: Recipe) -> str:
    if recipe.stage == "projector":
        return "Projector between a OneVision encoder and a language model, trained alone (stage 1)."
    return "Vision-language model: OneVision encoder, projector and language model, trained together (stage 2)."


def _loading(recipe: Recipe) -> list[str]:
    if recipe.stage == "projector":
        return ["# in the recipe of the next stage", "model: {projector: <this folder>}"]
    return [
        "from transformers import AutoTokenizer",
        "from ov_model.vlm.build import load_vlm",
        "",
        'model = load_vlm("<this folder>")',
        'tokenizer = AutoTokenizer.from_pretrained("<this folder>")',
    ]


def _sources(manifest: dict[str, Any] | None) -> list[str]:
    if manifest is None:
        return []
    counts = manifest.get("counts", {})
    return [
        f"  - {name}: {counts.get(name, '?')} rows of SHA-256 `{digest}`"
        for name, digest in manifest.get("inputs", {}).items()
    ]


def _weights(folder: Path) -> dict[str, tuple[int, str]]:
    paths = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return {path.name: (path.stat().st_size, hash_file(path)) for path in paths}
