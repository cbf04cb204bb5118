"""Benchmarks as assets: prepared, computed, checked; what other components see of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import ov_assets.benchmarks
from ov_assets.components import Benchmarks
from ov_model.errors import UsageError
from ov_model.eval.benchmarks import Benchmark, Places, find_benchmark
from ov_model.eval.hub import AccessError
from ov_model.eval.prepare import Prepared, PrepareOptions
from tests.assets.evaluations import QUIET
from tests.assets.lanes import checks_of, metadata, versions_of, why
from tests.assets.test_components import IMAGES, error_of, keys, load
from tests.factories import make_video

NAME = "mlvu_dev"
TINY = {"seq_len_frames": 8, "num_images": 2, "square_size": 64, "num_workers": 0}
RUN = {"data": "pictures", "projector": {"recipe": "pretrain"}, "checkpoint": {"recipe": "sft"}}


@dataclass
class Hub:
    """In place of `prepare`: two clips, their list, and what a test changes of them."""

    calls: list[PrepareOptions] = field(default_factory=list)
    missing: int = 0
    questions: int = 3
    gated: bool = False

    def __call__(self, benchmark: Benchmark, home: Path, options: PrepareOptions) -> Prepared:
        self.calls.append(options)
        if self.gated:
            raise AccessError(f"{benchmark.name}: accept the terms at https://hub/{benchmark.repo}, then hf auth login")
        places = Places(benchmark, home)
        rows = []
        places.videos.mkdir(parents=True, exist_ok=True)
        for number in range(2 + self.missing):
            video = places.videos / f"clip{number}.mp4"
            if number < 2 and not video.exists():
                make_video(video, frames=6, width=64, height=48, seed=number)
            rows.append({"video": str(video), "key": video.stem, "task": benchmark.task, "split": "test"})
            rows[-1] |= {"doc_id": number, "n": self.questions, "exists": video.exists()}
        places.offline.mkdir(parents=True, exist_ok=True)
        places.videos_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
        gone = tuple(row["video"] for row in rows if not row["exists"])
        return Prepared(benchmark, "abc", len(rows), gone, 0, 99, 7, untouched=False, seconds=0.1)


@dataclass
class Lane:
    """The two assets of one benchmark; the instance remembers."""

    folder: Path
    instance: dg.DagsterInstance
    hub: Hub

    def run(self, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize assets of one benchmark."""
        attributes = {"benchmarks": [NAME], "precompute": TINY, **options}
        steps = Benchmarks.from_attributes_dict(attributes=attributes).steps("benchmarks")
        return dg.materialize(
            [step.definition() for step in steps],
            instance=self.instance,
            selection=[dg.AssetKey(["benchmarks", name]) for name in names],
            partition_key=NAME,
            raise_on_error=False,
            run_config=QUIET,
        )

    @property
    def places(self) -> Places:
        return Places(find_benchmark(NAME), self.folder / "lake" / "benchmarks")


@pytest.fixture
def lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    hub = Hub()
    monkeypatch.setattr(ov_assets.benchmarks, "prepare", hub)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Lane(tmp_path, instance, hub)


BOTH = ("benchmark_videos", "benchmark_assets")


def test_videos_and_assets_say_what_they_are(lane: Lane) -> None:
    result = lane.run(*BOTH)
    assert result.success, why(result)
    videos = metadata(result, "benchmark_videos", "benchmarks")
    assert videos["work"] == "2 videos, 0 missing; 0.0 MB downloaded"
    assert (videos["videos"], videos["missing"], videos["bytes"], videos["gated"]) == (2, 0, 99, False)
    assert (videos["revision"], videos["repository"]) == ("abc", "sy1998/MLVU_dev")
    assert videos["license"].startswith("CC BY-NC-SA 4.0")
    assert videos["videos.jsonl"] == str(lane.places.videos_jsonl)
    assets = metadata(result, "benchmark_assets", "benchmarks")
    assert assets["work"] == "2 of 2 samples computed, 2 media read"
    assert assets["signals"] == {"residual": 2}
    assert assets["preview"].count("data:image/jpeg;base64,") == 2
    assert (lane.places.assets / "clip1" / "mosaic_001.jpg").is_file()
    assert all(checks_of(result).values())
    assert set(checks_of(result)) == {
        *(f"benchmark_videos/{check}" for check in ("videos_exist", "sample_count")),
        *(f"benchmark_assets/{check}" for check in ("failures_under_limit", "assets_whole", "one_signal")),
    }
    again = lane.run(*BOTH)
    assert versions_of(again) == versions_of(result)
    assert metadata(again, "benchmark_assets", "benchmarks")["computed"] == 0


def test_versions_follow_questions_and_pictures(lane: Lane) -> None:
    first = versions_of(lane.run(*BOTH))
    lane.hub.questions = 4
    asked = versions_of(lane.run(*BOTH))
    assert [asked[name] == first[name] for name in BOTH] == [False, True]
    make_video(lane.places.videos / "clip0.mp4", frames=6, width=64, height=48, seed=9)
    drawn = versions_of(lane.run(*BOTH))
    assert [drawn[name] == asked[name] for name in BOTH] == [True, False]
    assert versions_of(lane.run(*BOTH, precompute={**TINY, "jpg_quality": 60})) != drawn


def test_a_missing_video_blocks_above_the_limit(lane: Lane) -> None:
    lane.hub.missing = 1
    result = lane.run(*BOTH)
    assert not checks_of(result)["benchmark_videos/videos_exist"]
    assert "benchmark_assets/one_signal" not in checks_of(result)
    assert "videos_exist of benchmarks/benchmark_videos of mlvu_dev failed" in why(lane.run("benchmark_assets"))
    assert all(checks_of(lane.run(*BOTH, missing_limit=0.5)).values())


def test_a_broken_asset_fails_its_check(lane: Lane) -> None:
    lane.run(*BOTH)
    mosaic = lane.places.assets / "clip0" / "mosaic_001.jpg"
    mosaic.write_bytes(mosaic.read_bytes()[:-200])
    step = Benchmarks.from_attributes_dict(attributes={"benchmarks": [NAME], "precompute": TINY}).steps("benchmarks")[1]
    found = step.checks["assets_whole"].find(NAME)
    assert not found.passed
    assert "mosaic_001.jpg" in found.summary
    mosaic.unlink()
    assert step.checks["assets_whole"].find(NAME).offenders == (f"{mosaic} is missing",)


def test_a_video_that_cannot_be_decoded_counts_as_failure(lane: Lane) -> None:
    lane.run("benchmark_videos")
    (lane.places.videos / "clip0.mp4").write_bytes(b"no video")
    result = lane.run("benchmark_assets")
    assert metadata(result, "benchmark_assets", "benchmarks")["failed by reason"] == {"unreadable_container": 1}
    assert not checks_of(result)["benchmark_assets/failures_under_limit"]
    assert checks_of(lane.run("benchmark_assets", failure_limit=0.5))["benchmark_assets/failures_under_limit"]


def test_another_count_of_questions_fails(lane: Lane) -> None:
    attributes = {"benchmarks": ["egoschema"], "precompute": TINY}
    videos, _ = Benchmarks.from_attributes_dict(attributes=attributes).steps("benchmarks")
    lane.hub(find_benchmark("egoschema"), lane.places.home, PrepareOptions())
    found = videos.checks["sample_count"].find("egoschema")
    assert (found.passed, found.summary) == (False, "6 questions, the benchmark has 500")


def test_what_is_gated_or_not_prepared_is_said(lane: Lane) -> None:
    assert f"materialize benchmark_videos of {NAME} first" in why(lane.run("benchmark_assets"))
    lane.hub.gated = True
    started = time.monotonic()
    assert "AccessError: mlvu_dev: accept the terms at https://hub/sy1998/MLVU_dev" in why(lane.run("benchmark_videos"))
    assert len(lane.hub.calls) == 1
    assert time.monotonic() - started < 30


def test_archives_are_kept_as_configured(lane: Lane) -> None:
    lane.run("benchmark_videos")
    lane.run("benchmark_videos", keep_archives=False)
    assert [call.archives for call in lane.hub.calls] == ["keep", "delete"]


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"benchmarks": ["videome"]}, "no benchmark 'videome'"),
        ({"benchmarks": []}, "name at least one, each once"),
        ({"benchmarks": ["nextqa", "nextqa_mc_test"]}, "nextqa, nextqa; name at least one, each once"),
        ({"missing_limit": 2}, "missing_limit is 2.0, expected a share between 0 and 1"),
        ({"precompute": {"num_image": 8}}, "precompute: num_image is no option here; there are: "),
        ({"precompute": {"num_shards": 2}}, "precompute: num_shards is no option here"),
        ({"precompute": {"num_images": "eight"}}, "precompute: num_images is 'eight'"),
        ({"precompute": {"square_size": 577}}, "577 is not a multiple of patch_size 16"),
    ],
)
def test_bad_attributes_are_named(attributes: dict[str, Any], told: str) -> None:
    assert told in error_of({"benchmarks": ("Benchmarks", attributes)})


def test_every_run_and_external_checkpoint_has_scores_where_there_are_benchmarks() -> None:
    folders = {
        "pictures": IMAGES,
        "vlm": ("TrainingRun", RUN),
        "theirs": ("ExternalCheckpoint", {"checkpoint": "owner/name", "revision": "v1"}),
    }
    assert not {key for key in keys(load(folders)) if key.endswith("scores")}
    definitions = load({**folders, "benchmarks": ("Benchmarks", {"benchmarks": ["tomato", "nextqa_mc_test"]})})
    graph = definitions.resolve_asset_graph()
    shared = {dg.AssetKey(["benchmarks", name]) for name in BOTH}
    for run in ("vlm", "theirs"):
        scores = graph.get(dg.AssetKey([run, "scores"]))
        assert scores.parent_keys == {dg.AssetKey([run, "checkpoint"]), *shared}
        assert scores.partitions_def == graph.get(dg.AssetKey(["benchmarks", "benchmark_assets"])).partitions_def
        assert scores.partitions_def is not None
        assert list(scores.partitions_def.get_partition_keys()) == ["tomato", "nextqa"]
        assert definitions.get_assets_def(dg.AssetKey([run, "scores"])).op.pool == "gpu"
    assert graph.get(dg.AssetKey(["leaderboard"])).parent_keys == {
        dg.AssetKey([run, "scores"]) for run in ("vlm", "theirs")
    }
    pools = [definitions.get_assets_def(dg.AssetKey(["benchmarks", name])).op.pool for name in BOTH]
    assert pools == ["download", "decode"]


def test_by_default_the_eight_are_partitions() -> None:
    names = Benchmarks.from_attributes_dict(attributes={}).benchmark_set("benchmarks").names
    eight = "videomme mvbench perceptiontest nextqa temporalbench video_mmmu tomato longvideobench"
    assert set(names) >= set(eight.split())


def test_two_sets_of_benchmarks_are_refused() -> None:
    two = {name: ("Benchmarks", {"benchmarks": ["tomato"]}) for name in ("benchmarks", "more")}
    told = error_of({**two, "theirs": ("ExternalCheckpoint", {"checkpoint": "owner/name"})})
    assert "benchmarks and more both define benchmarks" in told


def test_a_checkpoint_of_elsewhere_is_found_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from ov_assets.components import ExternalCheckpoint

    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer_config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    component = ExternalCheckpoint.from_attributes_dict(attributes={"checkpoint": "weights"})
    foreign = component.foreign("theirs", tmp_path)

    def find() -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            step = component.step(foreign).definition()
            return dg.materialize([step], instance=instance, raise_on_error=False, run_config=QUIET)

    first = find()
    assert first.success, why(first)
    assert foreign.locate() == (str(folder), None)
    assert metadata(first, "checkpoint", "theirs")["files"] == 4
    (folder / "README.md").write_text("about")
    assert versions_of(find()) == versions_of(first)
    (folder / "model.safetensors").write_text("other")
    assert versions_of(find()) != versions_of(first)
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer_config.json" in why(find())


def test_a_name_that_makes_no_key_and_a_checkpoint_nobody_looked_for(tmp_path: Path) -> None:
    from ov_assets.components import ExternalCheckpoint

    component = ExternalCheckpoint.from_attributes_dict(attributes={"checkpoint": "owner/name"})
    with pytest.raises(UsageError, match="letters, digits and _ only"):
        component.foreign("their-model", tmp_path)
