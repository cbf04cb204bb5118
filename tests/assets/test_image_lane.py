"""An image dataset's lane: no decoding, the same checks, images that must be there."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest

from ov_assets.components import ImageDataset
from tests.assets.lanes import Playground, checks_of, make_record, metadata, why
from tests.factories import make_image


@pytest.fixture
def images(playground: Playground) -> Playground:
    """Two image records (one of two images) and one of text alone."""
    for name in ("a.jpg", "b.png"):
        make_image(playground.folder / name)
    playground.write(
        [
            make_record("a.jpg", id="one", kind="image"),
            make_record(["a.jpg", "b.png"], id="two", kind="image"),
            make_record(None, id="text", kind="text"),
        ]
    )
    return playground


def run_all(playground: Playground, **options: Any) -> list[dg.ExecuteInProcessResult]:
    attributes = {
        "dataset_path": str(playground.raw),
        "media_root": str(playground.folder),
        "root": str(playground.root),
        "num_shards": 2,
        **options,
    }
    lane = ImageDataset.from_attributes_dict(attributes=attributes).lane(playground.name, playground.folder)
    return [
        playground.run("records", lane=lane),
        *(playground.run("training_jsonl", shard=shard, lane=lane) for shard in range(2)),
        playground.run("train_jsonl", lane=lane),
    ]


def test_images_and_text_become_training_rows(images: Playground):
    results = run_all(images)
    assert [why(result) for result in results] == [""] * 4
    assert all(all(checks_of(result).values()) for result in results)
    rows = [json.loads(line) for line in (images.root / "train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["one", "two", "text"]
    assert rows[0]["image"] == str(images.folder / "a.jpg")
    assert rows[1]["image"] == [str(images.folder / "a.jpg"), str(images.folder / "b.png")]
    assert "positions_thw" not in rows[0]
    assert metadata(results[3], "train_jsonl")["rows"] == 3


def test_a_missing_image_fails_its_shard(images: Playground):
    (images.folder / "b.png").unlink()
    results = run_all(images)
    shard = next(result for result in results[1:3] if metadata(result, "training_jsonl")["failed"])
    assert metadata(shard, "training_jsonl")["failed by reason"] == {"missing_file": 1}
    assert checks_of(shard)["training_jsonl/failures_under_limit"] is False
    assert "UpstreamError" in why(results[3])
    assert [why(result) for result in run_all(images, failure_limit=1.0)][3] == ""
