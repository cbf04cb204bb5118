"""Energy over time of one sample, from its meta file: what `ov report` and the UI both show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ov_model.plots import draw_energy


def energy_plot(
    meta: Mapping[str, Any], pos_K3: NDArray[np.int32], frame_ids_T: NDArray[np.int32], title: str, width: int = 640
) -> bytes | None:
    """A PNG; None where the meta file says nothing of energy (the reference's, or one of an earlier version).

    Args:
        meta: of stage 1 or of a codec asset. pos_K3: chosen patches (t, h, w). frame_ids_T: frame number at each t.
    """
    energy = meta.get("energy_by_frame")
    if not energy or len(energy) != len(frame_ids_T):
        return None
    grid = meta.get("hb") or meta["debug"]["hb"]
    intra_T = np.array([picture == "I" for picture in meta.get("picture_by_frame", "")], bool)
    chosen_T = np.bincount(pos_K3[:, 0], minlength=len(frame_ids_T))
    return draw_energy(
        frame_ids_T,
        np.array(energy, np.float32),
        chosen_T,
        title,
        patches=grid * grid,
        intra_T=intra_T if len(intra_T) == len(frame_ids_T) else None,
        width=width,
    )
