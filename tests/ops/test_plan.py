"""`ov plan`: a run's cost from samples that are really done, with an interval that holds it; nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov_model import precompute, stage1, stage2
from ov_model.errors import UsageError
from ov_model.ops.plan import estimate, plan_precompute, plan_stage1, plan_stage2
from tests.factories import make_record, make_video, write_dataset
from tests.ops.configs import assets_config, stage1_config, stage2_config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(5):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(5)] + [make_record("v0.mp4", id="again")]
    write_dataset(tmp_path / "raw.json", [*records, make_record(None, id="t", kind="text")])
    write_dataset(tmp_path / "videos.jsonl", [{"video": f"v{i}.mp4", "key": f"v{i}"} for i in range(5)])
    return tmp_path


def test_a_plan_that_tries_all_foresees_the_bytes(root: Path) -> None:
    plan = plan_stage1(stage1_config(root))
    assert not (root / "visidx").exists()
    assert (plan.records, plan.media, plan.done, plan.todo, plan.tried, plan.failed) == (7, 5, 0, 5, 5, 0)
    assert plan.seconds_each.low == pytest.approx(plan.seconds_each.value)
    assert plan.hours.value == pytest.approx(plan.seconds_each.value * 5 / 3600)
    stage1.run(stage1_config(root))
    made = [path for path in (root / "visidx").iterdir() if path.name.startswith("sample_v")]
    assert plan.bytes.value == pytest.approx(sum(path.stat().st_size for path in made))
    packing = plan_stage2(stage2_config(root))
    assert (packing.todo, packing.tried) == (5, 5)
    assert not (root / "images").exists()
    stage2.run(stage2_config(root))
    packs = list((root / "images").glob("sample_v*/*"))
    assert packing.bytes.value == pytest.approx(sum(path.stat().st_size for path in packs))


def test_what_is_done_is_not_planned_again(root: Path) -> None:
    stage1.run(stage1_config(root, max_samples=3))
    plan = plan_stage1(stage1_config(root), samples=1)
    assert (plan.done, plan.todo, plan.tried) == (3, 2, 1)
    assert plan.seconds_each.low == 0
    precompute.run(assets_config(root))
    rest = plan_precompute(assets_config(root))
    assert (rest.done, rest.todo, rest.hours.value, rest.bytes.high) == (5, 0, 0, 0)


def test_failures_of_the_trial_are_counted_and_a_dataset_without_video_is_refused(root: Path) -> None:
    (root / "v1.mp4").write_bytes(b"no video " * 100)
    plan = plan_precompute(assets_config(root))
    assert (plan.tried, plan.failed) == (5, 1)
    write_dataset(root / "raw.json", [make_record(None, id="t", kind="text")])
    with pytest.raises(UsageError, match="no video among them"):
        plan_stage1(stage1_config(root))


def test_the_interval_holds_the_total_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    population = random.gamma(4.0, 1.0, 200)
    held = 0
    for _ in range(300):
        found = estimate(random.choice(population, 20, replace=False).tolist(), 200, 200)
        held += found.low <= population.sum() <= found.high
    assert 270 <= held <= 297
