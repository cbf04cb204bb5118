"""Dagster's UI on the demo's data, as a user sees it: the graph, an asset with its pictures, shards, checks."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from ov_assets.environment import PROJECT
from tests.browser.browser import Tab
from tests.browser.ui import Ui

GROUPS = ("benchmarks", "demo", "demo_mixture", "demo_tiny", "tiny")
STAGES = ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
GRAPH = PROJECT / "docs" / "graph.png"


def graph_url(ui: Ui, *groups: str) -> str:
    expanded = ",".join(f"global@global:{group}" for group in groups)
    return f"{ui.url}/asset-groups?{urlencode({'expanded': expanded})}"


def save_graph(shot: Path) -> None:
    """The README's picture: without the menu and the empty rims, in few colors."""
    with Image.open(shot) as image:
        picture = image.convert("RGB")
    drawn = np.asarray(picture.convert("L")) < 235
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    box = columns[0] - 30, rows[0] - 30, columns[-1] + 30, rows[-1] + 30
    cropped = picture.crop(tuple(int(max(side, 0)) for side in box))
    cropped.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
    cropped.quantize(64).save(GRAPH, "PNG", optimize=True)


def test_the_graph_shows_every_lane_and_the_state_of_its_assets(demo_ui: Ui, tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 2600, "height": 1250})
    tab.open(graph_url(demo_ui, *GROUPS), "train_jsonl", "leaderboard", "Never materialized")
    for name in (*STAGES, "mixture", "projector", "checkpoint", "scores", "benchmark_assets"):
        assert tab.page.get_by_text(name, exact=True).count() >= 1, name
    tab.see("Materialized")
    tab.shot("graph")
    if os.environ.get("OV_SCREENSHOTS"):
        tab.page.add_style_tag(content="[class*=ZoomSliderContainer] {display: none}")
        drawing = tab.page.locator("[class*=SVGViewport]").first
        path = tab.folder / "graph_only.png"
        drawing.screenshot(path=path)
        save_graph(path)


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


def test_the_list_of_partitions_of_a_job_is_a_matrix_of_shards_and_steps(demo_ui: Ui, tab: Tab) -> None:
    tab.open(f"{demo_ui.url}/locations/ov_assets/jobs/demo_shards", "raw_videos", "mosaics")
    tab.shot("job")
