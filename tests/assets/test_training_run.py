"""A training run as assets: what it depends on, when it is stale, what it trains again, what it says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import dagster as dg
import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver
from PIL import Image

from ov_assets.components.run_assets import RunAssets
from ov_assets.environment import PROJECT
from ov_assets.pipes import Abandoned, Ended
from ov_assets.training import TrainingData
from tests.assets.lanes import Playground, checks_of, metadata, names_of_shard, versions_of, why
from tests.assets.runs import PretendedProcess, RunPlayground, observations
from tests.assets.test_components import IMAGES, VIDEOS, error_of, keys, load
from tests.train.samples import write_codec_data

RUN = {"data": "both", "projector": {"recipe": "pretrain"}, "checkpoint": {"recipe": "sft"}, "nproc": 8}
MIXED = {
    "cooking": VIDEOS,
    "pictures": IMAGES,
    "both": ("Mixture", {"datasets": [{"dataset": "cooking"}, {"dataset": "pictures"}]}),
}
BUDGET = 64 * 1024


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPlayground]:
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield RunPlayground(tmp_path, write_codec_data(tmp_path / "data", 4), instance)


def stale(run: RunPlayground, assets: RunAssets) -> set[str]:
    resolver = get_stale_status_resolver(run.instance, list(assets.definitions().assets or []))  # pyright: ignore
    names = ("token_lengths", "projector", "checkpoint")
    return {name for name in names if resolver.get_status(dg.AssetKey(["small", name])).value != "FRESH"}


def code_versions(assets: RunAssets) -> list[str | None]:
    """Of token lengths, projector, checkpoint."""
    specs = [spec for step in assets.definitions().assets or [] for spec in step.specs]  # pyright: ignore
    return [spec.code_version for spec in specs]


def test_a_run_follows_its_mixture_and_the_pictures_behind_it() -> None:
    definitions = load({**MIXED, "vlm": ("TrainingRun", RUN)})
    assert keys(definitions) >= {"vlm/token_lengths", "vlm/projector", "vlm/checkpoint"}
    graph = definitions.resolve_asset_graph()
    behind = {dg.AssetKey(["both", "mixture"]), *(dg.AssetKey(["cooking", s]) for s in ("raw_videos", "mosaics"))}
    assert graph.get(dg.AssetKey(["vlm", "projector"])).parent_keys == behind
    projector = dg.AssetKey(["vlm", "projector"])
    assert graph.get(dg.AssetKey(["vlm", "checkpoint"])).parent_keys == {*behind, projector}
    for name in ("projector", "checkpoint"):
        step = definitions.get_assets_def(dg.AssetKey(["vlm", name])).op
        assert step.pool == "gpu"
        assert step.retry_policy is not None
        assert step.retry_policy.max_retries == 2


def test_a_run_on_one_dataset_follows_its_train_jsonl() -> None:
    graph = load({"pictures": IMAGES, "vlm": ("TrainingRun", RUN | {"data": "pictures"})}).resolve_asset_graph()
    assert graph.get(dg.AssetKey(["vlm", "projector"])).parent_keys == {dg.AssetKey(["pictures", "train_jsonl"])}


def test_what_is_wrong_with_a_run_is_said_when_it_is_loaded() -> None:
    assert "run vlm names data 'both', which is not defined" in error_of({"vlm": ("TrainingRun", RUN)})
    bad = RUN | {"checkpoint": {"recipe": "sft", "overrides": {"optim.learning_rat": 1}}}
    assert "optim.learning_rat" in error_of({**MIXED, "vlm": ("TrainingRun", bad)})
    gone = RUN | {"projector": {"recipe": "no/such.yaml"}}
    assert "no such file" in error_of({**MIXED, "vlm": ("TrainingRun", gone)})


def test_code_versions_follow_what_is_learned_and_nothing_else(run: RunPlayground) -> None:
    def changed(other: RunAssets) -> list[bool]:
        return [one != two for one, two in zip(code_versions(run.assets()), code_versions(other), strict=True)]

    assert changed(run.assets({"optim.max_steps": 4})) == [False, True, True]
    assert changed(run.assets({}, {"optim.learning_rate": 0.5})) == [False, False, True]
    assert changed(run.assets({}, {"data.max_length": 99})) == [True, False, True]
    assert changed(run.assets(nproc=2)) == [False, True, True]
    assert changed(run.assets({"run.log_every": 9}, {"run.save_every": 9}, retries=5, python="other")) == [False] * 3


def test_a_change_trains_what_it_concerns_and_taking_it_back_trains_nothing(
    run: RunPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = PretendedProcess(monkeypatch)
    first = run.materialize("projector", "checkpoint")
    assert first.success, why(first)
    assert process.trained == ["projector", "full"]
    assert checks_of(first) == {"projector/export_complete": True, "checkpoint/export_complete": True}
    assert stale(run, run.assets()) == {"token_lengths"}

    again = run.materialize("projector", "checkpoint")
    assert process.trained == ["projector", "full"]
    assert versions_of(again) == versions_of(first)
    assert metadata(again, "checkpoint", "small")["work"] == "0 of 3 steps trained"

    slower = run.assets({"optim.learning_rate": 0.5})
    assert stale(run, slower) == {"token_lengths", "projector", "checkpoint"}
    assert run.materialize("projector", "checkpoint", assets=slower).success
    assert process.trained == ["projector", "full"] * 2
    assert process.jobs[1]["recipe"]["model"]["projector"] != process.jobs[3]["recipe"]["model"]["projector"]

    assert versions_of(run.materialize("projector", "checkpoint")) == versions_of(first)
    assert process.trained == ["projector", "full"] * 2

    run.jsonl.write_text("".join(run.jsonl.read_text().splitlines(keepends=True)[:3]))
    run.materialize("projector", "checkpoint")
    assert process.trained == ["projector", "full"] * 3


def test_other_pictures_under_the_same_names_are_other_data(three_clips: Playground) -> None:
    dataset = three_clips.lane().dataset
    data = TrainingData(dg.AssetKey(["tiny", "train_jsonl"]), dataset.root / "train.jsonl", (), (dataset,))
    three_clips.run_all()
    text, before = data.jsonl.read_bytes(), data.fingerprint(three_clips.folder / "cache")
    three_clips.run_all()
    assert data.fingerprint(three_clips.folder / "cache") == before
    three_clips.video(names_of_shard(0, 1)[0], seed=99)
    three_clips.run_all()
    assert data.jsonl.read_bytes() == text
    assert data.fingerprint(three_clips.folder / "cache") != before


def test_a_failed_rank_is_tried_again_and_a_wrong_option_is_not(
    run: RunPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Ended(1, {"error": "TrainingFailed", "message": "rank 0 failed", "retry": True})
    process = PretendedProcess(monkeypatch, [failed, Ended(-9, {})])
    assert run.materialize("projector").success
    assert len(process.jobs) == 3
    assert len({job["out"] for job in process.jobs}) == 1
    process = PretendedProcess(monkeypatch, [Ended(2, {"error": "UsageError", "message": "no such tower"})])
    result = run.materialize("checkpoint")
    assert "UsageError: no such tower" in why(result)
    assert len(process.jobs) == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Abandoned("gone"), FileNotFoundError("python9")])
def test_what_nobody_waits_for_is_not_tried_again(
    run: RunPlayground, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    process = PretendedProcess(monkeypatch, [end])
    assert not run.materialize("projector").success
    assert len(process.jobs) == 1


def test_missing_data_and_a_missing_projector_are_refused(run: RunPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedProcess(monkeypatch)
    assert "materialize small/projector first" in why(run.materialize("checkpoint"))
    run.jsonl.unlink()
    assert "materialize data/train_jsonl first" in why(run.materialize("projector"))


def test_a_broken_export_fails_its_check(run: RunPlayground, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedProcess(monkeypatch)
    assert run.materialize("projector").success
    (run.assets().projector.export() / "config.json").unlink()
    result = run.materialize("projector")
    assert checks_of(result) == {"projector/export_complete": False}
    assert "export_complete of small/projector failed" in why(run.materialize("checkpoint"))


def test_a_real_run_streams_its_loss_and_ends_with_a_curve(run: RunPlayground) -> None:
    result = run.materialize("token_lengths", "projector", "checkpoint")
    assert result.success, why(result)
    lengths = metadata(result, "token_lengths", "small")
    assert lengths["rows"] == 4
    assert lengths["p50"] <= lengths["p99"] <= lengths["max"]
    assert lengths["truncated"] == 0
    seen = observations(result)
    assert seen[-1]["step"] == 3
    assert set(seen[-1]) == {"step", "loss", "learning rate", "tokens per second", "memory GB"}
    told = metadata(result, "checkpoint", "small")
    assert told["work"] == "3 of 3 steps trained"
    for text in (lengths["histogram"], told["loss curve"]):
        assert len(text) < BUDGET
        Image.open(BytesIO(base64.b64decode(text.split("base64,")[1].rstrip(")")))).load()
    export = Path(told["dagster/uri"])
    recipe = (export / "recipe.yaml").read_text()
    assert f"projector: {run.assets().projector.export()}/mm_projector.bin" in recipe
    assert json.loads((export / "config.json").read_text())["model_type"] == "llava_qwen3"
    again = run.materialize("checkpoint")
    assert versions_of(again)["checkpoint"] == versions_of(result)["checkpoint"]
    assert observations(again) == []


def test_without_the_extra_definitions_load_and_training_names_it(
    run: RunPlayground, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.folder / "sitecustomize.py").write_text(
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "hidden = ('torch', 'transformers', 'accelerate', 'deepspeed', 'tensorboard', 'safetensors')\n"
        "u.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)\n"
        "sys.modules.update(dict.fromkeys(hidden))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(run.folder))
    code = "import ov_assets.preload as p; print(len(p.LOADED.resolve_asset_graph().get_all_asset_keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    for name in ("projector", "token_lengths"):
        said = why(run.materialize(name))
        assert re.search(r"MissingExtra: torch.* not installed; run: pip install 'ov-lake\[train\]'", said), said
