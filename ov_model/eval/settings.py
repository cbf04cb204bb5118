"""The environment variables of evaluation (REFERENCE.md section 9) and the geometry that a run takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ov_model.errors import UsageError
from ov_model.geometry import Geometry

PREFIX = "LLAVA_CODEC_"
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")
_MODE = "pack_topk"
_GEOMETRY = {
    "num_images": "num_images",
    "seq_len_frames": "sequence_length",
    "square_size": "square_size",
    "patch_size": "patch_size",
}


@dataclass(frozen=True)
class CodecSettings:
    """What the environment asks for; None and empty where it says nothing. An argument wins over its variable.

    | variable | meaning |
    |---|---|
    | LLAVA_CODEC_USE_OFFLINE | 1, true, yes: mosaics of offline assets. 0, false, no: plain frames, as visual=frames |
    | LLAVA_CODEC_OFFLINE_ROOT | one or more `assets/` folders, joined by ':'; unset: found by the tasks' names |
    | LLAVA_CODEC_NUM_IMAGES | mosaics a video, or plain frames |
    | LLAVA_CODEC_SEQ_LEN_FRAMES | sampled frames, T |
    | LLAVA_CODEC_SQUARE_SIZE | side of a mosaic in pixels |
    | LLAVA_CODEC_PATCH_SIZE | side of a tile in pixels |
    | LLAVA_CODEC_VISIDX_MODE | pack_topk, the only mode there is |
    | LLAVA_CODEC_DEBUG | 1, true, yes: a log line for every video, HIT or not |
    """

    use_offline: bool | None = None
    offline_root: tuple[Path, ...] = ()
    num_images: int | None = None
    seq_len_frames: int | None = None
    square_size: int | None = None
    patch_size: int | None = None
    debug: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> CodecSettings:
        """Read the variables; an empty one counts as unset.

        Raises:
            UsageError: a value that cannot be honored.
        """
        mode = environ.get(f"{PREFIX}VISIDX_MODE") or _MODE
        if mode != _MODE:
            raise UsageError(f"{PREFIX}VISIDX_MODE is {mode!r}; only {_MODE} can be honored")
        return cls(
            use_offline=_flag(environ, "USE_OFFLINE"),
            offline_root=split_roots(environ.get(f"{PREFIX}OFFLINE_ROOT", "")),
            debug=bool(_flag(environ, "DEBUG")),
            **{name: _number(environ, name.upper()) for name in _GEOMETRY},
        )

    def geometry(self, recipe: Geometry | None, asked: Geometry | None = None, encoder_patch: int = 14) -> Geometry:
        """The run's geometry: the checkpoint's recipe, else what was asked for by argument, variable or default.

        Raises:
            UsageError: an argument or a variable contradicts the recipe; names both.
        """
        base = recipe or asked or replace(Geometry(), encoder_patch=encoder_patch)
        if asked is not None:
            for field in fields(Geometry):
                _agree(f"geometry.{field.name}", getattr(asked, field.name), field.name, base)
            return base
        changes = {}
        for name, field_name in _GEOMETRY.items():
            value = getattr(self, name)
            if value is None:
                continue
            if recipe is not None:
                _agree(PREFIX + name.upper(), value, field_name, recipe)
            changes[field_name] = value
        return replace(base, **changes)


def split_roots(text: str) -> tuple[Path, ...]:
    """Folders joined by ':'."""
    return tuple(Path(part).expanduser() for part in text.split(":") if part.strip())


def as_flag(value: object, name: str) -> bool:
    """A boolean, also from text.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise UsageError(f"{name} is {value!r}; use one of {', '.join((*TRUE, *FALSE))}")


def as_number(value: object, name: str) -> int:
    """A whole number of 1 or more, also from text.

    Raises:
        UsageError: it is not.
    """
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"{name} is {value!r}; it must be a whole number, 1 or more")
    return number


def _agree(asked: str, value: int, name: str, recipe: Geometry) -> None:
    wanted = getattr(recipe, name)
    if value != wanted:
        raise UsageError(
            f"{asked} is {value}, but the checkpoint was trained with {name} {wanted} (its recipe.yaml); unset it, or "
            "take a checkpoint trained with that"
        )


def _flag(environ: Mapping[str, str], name: str) -> bool | None:
    value = environ.get(PREFIX + name)
    return as_flag(value, PREFIX + name) if value else None


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(PREFIX + name)
    return as_number(value, PREFIX + name) if value else None
