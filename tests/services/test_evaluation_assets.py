"""From a hub to a leaderboard through Dagster, nothing pretended: download, codec assets, scores, each its own run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

pytest.importorskip("lmms_eval")

from ov_assets.environment import default_dagster_home
from tests.eval.fixtures import fixture
from tests.eval.hub import hub
from tests.eval.models import tiny_checkpoint

NAME, GATED = "tomato", "video_mmmu"
BOTH = "benchmarks/benchmark_videos,benchmarks/benchmark_assets"
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from ov_assets.components import Benchmarks, ExternalCheckpoint

HERE = Path(__file__).parent
PRECOMPUTE = {"seq_len_frames": 8, "num_images": 2, "square_size": 64, "num_workers": 0}
names = {"benchmarks": ["tomato", "video_mmmu"], "precompute": PRECOMPUTE}
benchmarks = Benchmarks.from_attributes_dict(attributes=names)
scores = {"visual": "both", "retries": 0, "device": "cpu", "observe_every": 0, "training_signals": {"residual": 1}}
checkpoint = ExternalCheckpoint.from_attributes_dict(attributes={"checkpoint": "weights", "scores": scores})
foreign = checkpoint.foreign("theirs", HERE)
step = checkpoint.scores.step(checkpoint.source(foreign), benchmarks.benchmark_set("benchmarks"), HERE)
defs = dg.Definitions.merge(
    benchmarks.definitions("benchmarks", ["theirs"]),
    dg.Definitions(
        assets=[checkpoint.step(foreign).definition(), step.definition()],
        executor=dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}),
    ),
)
"""


def materialize(folder: Path, environment: dict[str, str], select: str, *options: str) -> tuple[int, str]:
    """`dagster asset materialize`: exit code and output."""
    command = [
        str(Path(sys.executable).parent / "dagster"),
        *("asset", "materialize", "-f", str(folder / "definitions.py"), "--select", select, *options),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def last(key: list[str]) -> dict[str, Any]:
    """Metadata of an asset's last materialization."""
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(key))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((default_dagster_home() / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("OV_LAKE", str(tmp_path / "lake"))
    return dict(os.environ)


def test_a_benchmark_goes_from_the_hub_to_the_leaderboard(tmp_path: Path, environment: dict[str, str]) -> None:
    tiny_checkpoint(tmp_path / "weights")
    held, gated = (fixture(name, tmp_path / "clips") for name in (NAME, GATED))
    home = tmp_path / "lake" / "benchmarks"
    with hub() as local:
        local.add(held)
        local.add(gated, gated=True)
        environment = environment | local.environment(home)
        code, output = materialize(tmp_path, environment, BOTH, "--partition", GATED)
        assert code != 0
        assert f"AccessError: {GATED}" in output
        code, output = materialize(tmp_path, environment, f"theirs/checkpoint,{BOTH}", "--partition", NAME)
        assert code == 0, output
    told = last(["benchmarks", "benchmark_videos"])
    assert (told["videos"], told["missing"]) == (held.videos, 0)
    assert last(["benchmarks", "benchmark_assets"])["ok"] == held.videos

    code, output = materialize(tmp_path, environment, "theirs/scores,leaderboard", "--partition", NAME)
    assert code == 0, output
    scores = last(["theirs", "scores"])
    assert (scores["HIT"], scores["MISS"], scores["invalid"]) == (held.videos, 0, 0)
    assert scores["samples"] == held.questions
    assert scores["signals"] == {"residual": held.videos}
    assert scores["on plain frames (frames)"] == held.questions
    assert f"HIT {held.videos}/{held.videos}" in last(["leaderboard"])["table"]
    assert "codec - frames" in last(["leaderboard"])["table"]

    mosaic = sorted(home.glob("*_offline/assets/*/mosaic_001.jpg"))[0]
    mosaic.unlink()
    code, output = materialize(tmp_path, environment, "theirs/scores", "--partition", NAME)
    assert code != 0
    assert mosaic.parent.name in output
    assert "ov precompute" in output
