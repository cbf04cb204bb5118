"""Choosing as a whole: damage, unreadable slices, normalization by clip, aspect ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov_model.codec import coded
from ov_model.codec.choose import Choice, ChooseOptions, choose_patches
from ov_model.codec.energy import EnergyOptions
from ov_model.codec.h264.headers import Unreadable
from ov_model.errors import DecodeError, UnsupportedCodec
from ov_model.geometry import Geometry
from tests.factories import make_video, square_box, truncate

SMALL = Geometry(sequence_length=8, num_images=2, square_size=96, patch_size=16)


def choose(path: Path, **options: object) -> Choice:
    return choose_patches(path, ChooseOptions(geometry=SMALL, **options))  # type: ignore[arg-type]


def test_what_moves_is_chosen_first(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", width=96, height=96, frames=16)
    choice = choose(path)
    first = choice.pos_K3[SMALL.patches_per_image :][:8]
    for t, h, w in first.tolist():
        now, before = (square_box(int(i), 96, 96) for i in (choice.frame_ids_T[t], choice.frame_ids_T[t] - 1))
        left, top = min(now[0], before[0]), min(now[1], before[1])
        right, bottom = max(now[2], before[2]), max(now[3], before[3])
        assert left - 16 < w * 16 < right, (t, h, w)
        assert top - 16 < h * 16 < bottom, (t, h, w)


def test_slices_that_cannot_be_read_are_estimated_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "v.mp4", frames=16)
    assert choose(path).signal_method == "coefficients"
    read = coded.coded_residual

    def broken_later(frame, options, *, whole=True):  # type: ignore[no-untyped-def]
        if frame.pts is not None and frame.pts * frame.time_base > 0.3:
            raise Unreadable("made so")
        return read(frame, options, whole=whole)

    monkeypatch.setattr(coded, "coded_residual", broken_later)
    choice = choose(path)
    assert (choice.signal, choice.damaged) == ("residual", False)
    assert choice.signal_method != "coefficients"
    assert len(choice.pos_K3) == SMALL.num_patches


def test_damage_is_kept_and_said_or_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=24, container_options={"movflags": "faststart"}, pattern="noise")
    truncate(path, 0.6)
    choice = choose(path)
    assert choice.damaged
    assert 0 < choice.n_frames < choice.info.n_demuxed < 24
    assert choice.frame_ids_T.max() == choice.n_frames - 1
    with pytest.raises(DecodeError, match="--damaged keep"):
        choose(path, damaged="fail")


def test_clip_normalization_keeps_quiet_frames_quiet(tmp_path: Path) -> None:
    still = [np.full((96, 96, 3), 90, np.uint8)] * 8
    rng = np.random.default_rng(0)
    loud = [rng.integers(0, 256, (96, 96, 3)).astype(np.uint8) for _ in range(8)]
    path = make_video(tmp_path / "v.mp4", width=96, height=96, images=[*still, *loud])
    clip = choose(path, energy=EnergyOptions(normalize="clip"))
    quiet = clip.score_THW[clip.frame_ids_T < 8][1:].sum()
    assert quiet < 0.05 * clip.score_THW[clip.frame_ids_T >= 8].sum()
    assert clip.score_THW.shape == (8, 6, 6)


def test_aspect_ratio_is_applied_only_when_asked(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", width=96, height=96, sar=(2, 1))
    assert (choose(path).square.H0, choose(path).square.W0) == (96, 96)
    stretched = choose(path, apply_sar=True).square
    assert (stretched.H0, stretched.W0, stretched.Hn) == (96, 192, 48)


def test_codecs_can_be_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    with pytest.raises(UnsupportedCodec, match="codec h264 is not among the allowed ones"):
        choose(path, allowed_codecs=("hevc",))
