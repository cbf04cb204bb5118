"""Plots: small pictures whatever the numbers are, and marks where they belong."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ov_model.energy_plot import energy_plot
from ov_model.plots import BAD, draw_counts, draw_energy, draw_loss, draw_runs, draw_spread, running_mean

LIMIT = 32 * 1024


def pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(png: bytes, color: str) -> int:
    """How many pixels are about of a color."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(png) - wanted).max(axis=2) < 40).sum())


def test_the_curve_of_a_loss_that_is_not_a_number_has_a_gap() -> None:
    metrics = [{"step": step, "loss": loss} for step, loss in enumerate((3.0, float("nan"), 0.0, 2.0, 1.0))]
    for shown in (metrics, metrics[:1], metrics[1:2], []):
        assert pixels(draw_loss(shown, "small")).shape == (300, 640, 3)
    falling = [{"step": step, "loss": 100.0 / (step + 1)} for step in range(5000)]
    assert len(draw_loss(falling, "small")) < LIMIT


def test_a_running_mean_bridges_gaps_and_keeps_what_is_only_gap() -> None:
    mean = running_mean(np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan, np.nan]))
    assert mean[:3].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(mean[4:]).all()


def test_energy_marks_intra_frames_and_survives_repeated_and_single_frames() -> None:
    ids = np.array([0, 4, 4, 8], np.int32)
    energy, chosen = np.array([1, 2, 2, 0.5], np.float32), np.array([16, 3, 0, 1])
    plain = draw_energy(ids, energy, chosen, "clip $1", patches=16)
    marked = draw_energy(ids, energy, chosen, "clip $1", patches=16, intra_T=np.array([True, False, False, False]))
    assert near(marked, BAD) > near(plain, BAD)
    assert max(len(plain), len(marked)) < LIMIT
    assert draw_energy(ids[:1], energy[:1] * 0, chosen[:1], "one frame", patches=16)


def test_no_energy_plot_of_what_has_no_energy_recorded() -> None:
    pos, ids = np.array([[0, 0, 0], [1, 2, 3]], np.int32), np.array([0, 5], np.int32)
    assert energy_plot({"hb": 4}, pos, ids, "the reference's") is None
    assert energy_plot({"hb": 4, "energy_by_frame": [1.0]}, pos, ids, "of other frames") is None
    recorded = {"hb": 4, "energy_by_frame": [1.0, 0.2], "picture_by_frame": "IP"}
    assert energy_plot(recorded, pos, ids, "ours")
    assert energy_plot({"debug": {"hb": 4}, **{k: recorded[k] for k in ("energy_by_frame",)}}, pos, ids, "an asset's")


@pytest.mark.parametrize(
    "counts", [{}, {"missing_file": 3}, {"a": 1, "b": 100_000}, {"weights": 1.25, "config": 0.001}, {"none": 0}]
)
def test_counts_have_a_bar_each(counts: dict[str, float]) -> None:
    png = draw_counts(counts, "why")
    assert pixels(png).shape[1] == 640
    assert (near(png, BAD) > 300) == any(counts.values())


def test_runs_and_spreads_take_one_value_or_none() -> None:
    for values in ([], [0.0], [1.5, 2.5]):
        assert draw_runs(values, "speed", "videos/s")
        assert draw_spread(values, "lengths", "seconds")
