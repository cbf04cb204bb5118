"""Which patches are kept: budget, padding policies, top-K with a defined tie order. Arrays in, arrays out.

A position is a row (t, h, w): index of the sampled frame, grid row, grid column. Ties in score are broken by the flat
index t*G*G + h*G + w, ascending.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ov_model.errors import UsageError
from ov_model.geometry import Geometry

PADDING_POLICIES = ("exclude", "zero", "repeat")
_PADDING_LAST = -1e-4


@dataclass(frozen=True)
class SelectOptions:
    """Padding policy and what of the first frame is always kept.

    Raises:
        UsageError: an unknown policy, or a combination that cannot be packed into whole mosaics.
    """

    padding_policy: str = "zero"
    keep_first_full_frame: bool = True
    keep_uniform_first: bool = False

    def __post_init__(self) -> None:
        if self.padding_policy not in PADDING_POLICIES:
            raise UsageError(
                f"padding_policy is {self.padding_policy!r}; it must be one of {', '.join(PADDING_POLICIES)}"
            )
        if self.keep_first_full_frame and self.keep_uniform_first:
            raise UsageError(
                "keep_first_full_frame and keep_uniform_first contradict each other: the first keeps all patches "
                "of frame 0, the second its content only; give one of them"
            )
        if self.keep_first_full_frame and self.padding_policy == "exclude":
            raise UsageError(
                "padding_policy exclude with keep_first_full_frame gives a number of patches that does not fill "
                "whole mosaics; use padding_policy zero or repeat, or --no-keep_first_full_frame"
            )

    @classmethod
    def resolve(
        cls, padding_policy: str, keep_first_full_frame: bool | None, keep_uniform_first: bool | None
    ) -> SelectOptions:
        """Fill in what was left unset (None): an explicit keep_uniform_first, or exclude, turns the full frame off."""
        if keep_first_full_frame is None:
            keep_first_full_frame = not keep_uniform_first and padding_policy != "exclude"
        return cls(padding_policy, keep_first_full_frame, bool(keep_uniform_first))


@dataclass(frozen=True, eq=False)
class Selection:
    """pos_K3 int32 [K, 3], mandatory block first, then by descending score; the last `repeated` rows are copies."""

    pos_K3: NDArray[np.int32]
    repeated: int


def sample_frames(num_frames: int, sequence_length: int, offset: int = 0) -> NDArray[np.int32]:
    """int32 [T]: display indices of the sampled frames, trunc(linspace(offset, n-1, T)); offsets past the end are 0."""
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; at least one frame is needed")
    start = offset if 0 <= offset < num_frames else 0
    return np.linspace(start, num_frames - 1, sequence_length, dtype=int).astype(np.int32)


def select_patches(
    score_THW: NDArray[np.float32], valid_HW: NDArray[np.bool_], geometry: Geometry, options: SelectOptions
) -> Selection:
    """Choose the patches of a video.

    Args:
        score_THW: float32 [T, G, G] energy of each patch.
        valid_HW: bool [G, G], True where a patch lies wholly inside the content.
    Returns:
        a Selection; K depends on the policy (see `budget`).
    """
    frames, rows, columns = score_THW.shape
    cells = rows * columns
    policy = options.padding_policy
    score = score_THW.reshape(frames, cells).astype(np.float32, copy=True)
    valid = valid_HW.reshape(cells)
    allowed = np.ones((frames, cells), dtype=bool)
    if policy == "zero":
        score[:, ~valid] = _PADDING_LAST
    else:
        allowed[:, ~valid] = False

    first = np.zeros(cells, dtype=bool)
    if options.keep_first_full_frame:
        first[:] = True
    elif options.keep_uniform_first:
        first[:] = valid
    mandatory = np.flatnonzero(first)
    if mandatory.size:
        allowed[0] = False

    wanted = budget(frames, cells, int(valid.sum()), geometry.num_images, policy)
    mandatory = mandatory[:wanted]
    chosen = np.concatenate([mandatory, rank(score, allowed)[: wanted - mandatory.size]])
    return fill_up(chosen, wanted if policy == "repeat" else chosen.size, (rows, columns))


def rank(score: NDArray[np.float32], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat indices of the allowed patches, best score first, ties by index."""
    candidates = np.flatnonzero(allowed.ravel())
    return candidates[np.argsort(-score.ravel()[candidates], kind="stable")]


def fill_up(chosen: NDArray[np.intp], wanted: int, grid: tuple[int, int]) -> Selection:
    """Flat indices as a Selection of `wanted` rows: the last one fills what is missing.

    Raises:
        UsageError: rows are missing and none is there to repeat.
    """
    short = wanted - chosen.size
    if short and not chosen.size:
        raise UsageError("no patch lies wholly inside the content: the frame is too narrow for this geometry")
    if short:
        chosen = np.concatenate([chosen, np.repeat(chosen[-1:], short)])
    t, cell = np.divmod(chosen, grid[0] * grid[1])
    return Selection(np.stack([t, cell // grid[1], cell % grid[1]], axis=1).astype(np.int32), short)


def budget(frames: int, cells: int, valid: int, num_images: int, policy: str) -> int:
    """Number of rows a policy keeps: content patches only for `exclude`, whole mosaics for `zero` and `repeat`."""
    per_frame = valid if policy == "exclude" else cells
    return min(num_images, frames) * per_frame
