"""Dagster's UI on the demo's data, as a user sees it: the graph, an asset with its pictures, shards, checks."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from ov_assets.environment import PROJECT
from tests.browser.browser import Tab
from tests.browser.ui import Ui

GROUPS = ("benchmarks", "demo", "demo_mixture", "demo_tiny", "tiny")
STAGES = ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
GRAPH = PROJECT / "docs" / "graph.png"  # graph_only.png of a run over a whole `make demo`
MENU, BAR, SLIDER, RIM = 560, 120, 90, 40


def graph_url(ui: Ui, *groups: str) -> str:
    expanded = ",".join(f"global@global:{group}" for group in groups)
    return f"{ui.url}/asset-groups?{urlencode({'expanded': expanded})}"


def save_graph(shot: Path, target: Path) -> None:
    """The README's picture: without the menu and the empty rims, in few colors."""
    with Image.open(shot) as image:
        picture = image.convert("RGB").crop((MENU, BAR, image.width - SLIDER, image.height))
    drawn = np.asarray(picture.convert("L")) < 200
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    left, top, right, bottom = (int(edge) for edge in (columns[0], rows[0], columns[-1], rows[-1]))
    picture = picture.crop((left - RIM, top - RIM, right + RIM, bottom + RIM))
    picture.thumbnail((2000, 2000), Image.Resampling.LANCZOS)
    picture.quantize(64, Image.Quantize.MAXCOVERAGE).save(target, "PNG", optimize=True)


def test_the_graph_shows_every_lane_and_the_state_of_its_assets(demo_ui: Ui, tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 4600, "height": 3300})
    tab.open(graph_url(demo_ui, *GROUPS), "train_jsonl", "leaderboard", "NumPy", "Latest event")
    for name in (*STAGES, "mixture", "projector", "checkpoint", "scores", "benchmark_assets"):
        assert tab.page.get_by_text(name, exact=True).count() >= 1, name
    tab.page.wait_for_function("() => !document.body.innerText.includes('Loading...')")
    save_graph(tab.shot("graph"), tab.folder / "graph_only.png")
    assert (tab.folder / "graph_only.png").stat().st_size < 300_000
    with Image.open(GRAPH) as shown:
        assert min(shown.size) > 600
    assert GRAPH.stat().st_size < 300_000


def test_an_asset_says_what_it_is_and_shows_where_energy_was(demo_ui: Ui, tab: Tab) -> None:
    tab.open(
        f"{demo_ui.url}/assets/demo/visidx?view=overview",
        "The patches of each video that its codec spent effort on",
        "demo/raw_videos",
        "index of the sampled frame, from 0",
        "lake",
    )
    tab.shot("visidx")
    tab.open(f"{demo_ui.url}/assets/demo/visidx?view=partitions&partition=shard00of02", "videos per second")
    tab.see("energy over time", "speed over runs", "visidx.shard00of02.parquet")
    row = tab.page.locator("tr", has_text="energy over time").first
    row.get_by_text("[Show Markdown]").click()
    tab.see("Line: mean energy of each sampled frame")
    pictures = tab.pictures("[class*=ialog] img")
    assert pictures
    assert all(width >= 600 and height >= 200 for width, height in pictures)
    tab.shot("energy")


def test_mosaics_show_themselves_and_a_heat_map(demo_ui: Ui, tab: Tab) -> None:
    tab.open(f"{demo_ui.url}/assets/demo/mosaics?view=partitions&partition=shard01of02", "preview")
    tab.page.locator("tr", has_text="preview").first.get_by_text("[Show Markdown]").click()
    tab.see("how often each patch was chosen")
    pictures = tab.pictures("[class*=ialog] img")
    assert len(pictures) == 2
    assert all(min(size) > 100 for size in pictures)
    tab.shot("mosaics")


def test_shards_and_checks_tell_how_they_are(demo_ui: Ui, tab: Tab) -> None:
    tab.open(f"{demo_ui.url}/assets/demo/mosaics?view=partitions", "shard00of02", "shard01of02", "Materialized (2)")
    tab.open(f"{demo_ui.url}/assets/demo/visidx?view=checks&checkDetail=one_signal", "All videos were scored by one")
    tab.see("positions_valid", "failures_under_limit")
    tab.shot("checks")
    tab.open(f"{demo_ui.url}/assets/demo/train_jsonl?view=overview", "nothing failed", "All shards' rows in the order")
    tab.shot("train_jsonl")


def test_the_partitions_of_a_job_are_a_matrix_of_shards_and_stages(demo_ui: Ui, tab: Tab) -> None:
    tab.open(f"{demo_ui.url}/locations/ov_assets/jobs/demo_shards/partitions", "Total partitions")
    tab.page.get_by_text("Show per-asset status").click()
    tab.see("demo/raw_videos", "demo/training_jsonl", "shard01of02")
    tab.shot("matrix")
