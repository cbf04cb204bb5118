"""A checkpoint to evaluate: checked before anything is loaded, then loaded in the precision of its device."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ov_model.encoder import choose_attention
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_json
from ov_model.train.recipe import load_recipe
from ov_model.vlm import VisionLanguage, load_vlm
from ov_model.vlm.preprocess import CLIP_MEAN, CLIP_STD

log = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
_EXPORT = "ov train writes it with the rest of RUN/export; elsewhere: "
_NEEDED = {
    ("config.json",): f"{_EXPORT}model.config.save_pretrained(FOLDER)",
    ("tokenizer_config.json",): f"{_EXPORT}AutoTokenizer.from_pretrained(LANGUAGE_MODEL).save_pretrained(FOLDER)",
    ("preprocessor_config.json",): f"{_EXPORT}ov_model.train.export.processor(Geometry()).save_pretrained(FOLDER)",
    ("model.safetensors", "model.safetensors.index.json"): "a projector stage's export has none: train the full stage",
}
_PRECISIONS = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that `from_pretrained` loads.

    Args:
        config: its config.json.
        geometry: of the recipe it was trained with; None for foreign checkpoints.
        fingerprint: changes with its files' names, sizes and modification times.
    """

    folder: Path
    config: dict[str, Any]
    geometry: Geometry | None
    fingerprint: str

    @classmethod
    def open(cls, pretrained: str, revision: str | None = None) -> Checkpoint:
        """A folder, or a hub repository (downloaded through huggingface_hub).

        Raises:
            UsageError: neither; or a file is missing: names it and what makes it.
        """
        if not pretrained:
            raise UsageError("no checkpoint: give pretrained=FOLDER or a hub id")
        folder = Path(pretrained).expanduser()
        if not folder.is_dir():
            folder = _download(pretrained, revision)
        for names, makes in _NEEDED.items():
            if not any((folder / name).is_file() for name in names):
                raise UsageError(f"checkpoint {folder} has no {names[0]}; {makes}")
        _check_processor(folder / "preprocessor_config.json")
        recipe = folder / RECIPE
        geometry = load_recipe(recipe).data.geometry if recipe.is_file() else None
        files = sorted(path for path in folder.iterdir() if path.is_file())
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return cls(folder, _read_json(folder / "config.json"), geometry, hash_json(state)[:16])

    @property
    def encoder_patch(self) -> int:
        """Side of the encoder's patch in pixels."""
        return int((self.config.get("vision_config") or {}).get("patch_size", Geometry.encoder_patch))

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return AutoTokenizer.from_pretrained(self.folder)

    def load(self, device: torch.device, dtype: torch.dtype) -> VisionLanguage:
        """The model, ready to answer."""
        attention = choose_attention(device, dtype)
        options = {} if attention == "sdpa" else {"attn_implementation": attention}
        model = load_vlm(self.folder, dtype=dtype, **options)
        return model.eval().to(device)  # type: ignore[arg-type]


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of a name; "auto" is bf16 on an accelerator and float32 on a CPU.

    Raises:
        UsageError: an unknown name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _PRECISIONS:
        raise UsageError(f"dtype is {name!r}; use auto, {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"checkpoint {name}: no such folder, and the hub does not give it ({type(error).__name__}: {first}); check "
            "the name, and that you are logged in (hf auth login) where it is gated"
        ) from error


def _check_processor(path: Path) -> None:
    """Pictures are normalized by CLIP's mean and deviation here; a checkpoint that wants others is refused."""
    found = _read_json(path)
    for name, wanted in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)):
        values = found.get(name)
        if values is not None and any(abs(a - b) > 1e-4 for a, b in zip(values, wanted, strict=True)):
            raise UsageError(f"{path}: {name} is {values}; this encoder's pictures have {list(wanted)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}); fetch or write it again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: a {type(value).__name__}; expected a JSON object")
    return value
