"""The project's own definitions: all of them load, say what they are, and run as the instance expects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import PoolGranularity

import ov_assets.defs
from ov_assets.components import Mixture, VideoDataset
from ov_assets.definitions import defs
from ov_assets.environment import PROJECT, NoDagsterHomeWarning, lake_root

STAGES = ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
RUN = ("token_lengths", "projector", "checkpoint")
QUESTIONS = dg.AssetCheckKey(dg.AssetKey(["benchmarks", "benchmark_videos"]), "sample_count")
pytestmark = pytest.mark.filterwarnings("ignore::ov_assets.environment.NoDagsterHomeWarning")


def test_every_definition_loads_and_describes_itself():
    graph = defs().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} >= {
        *(f"demo/{stage}" for stage in ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")),
        *(
            f"demo_tiny/{stage}"
            for stage in ("records", "raw_videos", "visidx", "mosaics", "training_jsonl", "train_jsonl")
        ),
        "demo_mixture/mixture",
        *(f"tiny/{name}" for name in RUN),
        *(f"benchmarks/{name}" for name in ("benchmark_videos", "benchmark_assets")),
        *("tiny/scores", "leaderboard"),
    }
    for node in graph.asset_nodes:
        name = node.key.to_user_string()
        assert node.group_name == ("benchmarks" if name == "leaderboard" else node.key.path[0]), name
        assert node.description, name
        assert node.owners, name
        assert node.kinds, name
        assert node.code_version, name
        assert "dagster/column_schema" in node.metadata or node.key.path[-1] in RUN, name
    partitions = graph.get(dg.AssetKey(["demo", "visidx"])).partitions_def
    assert partitions is not None
    assert list(partitions.get_partition_keys()) == ["shard00of02", "shard01of02"]


def test_checks_of_sharded_assets_know_their_shard_and_all_but_warnings_block():
    definitions = defs()
    graph = definitions.resolve_asset_graph()
    specs = [spec for asset in definitions.resolve_all_asset_specs() for spec in _checks(definitions, asset.key)]
    assert len(specs) > 10
    for spec in specs:
        assert spec.description
        warns = spec.name in ("one_signal", "signals_agree") or spec.key == QUESTIONS
        assert spec.blocking != warns
        assert (spec.partitions_def is None) == (graph.get(spec.asset_key).partitions_def is None)


def _checks(definitions: dg.Definitions, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    asset = definitions.get_assets_def(key)
    return [spec for spec in asset.check_specs if spec.asset_key == key]


def test_runs_fork_from_a_server_that_has_the_definitions():
    executor = defs().executor
    assert isinstance(executor, dg.ExecutorDefinition)
    assert executor.name == "multiprocess"
    job = defs().resolve_job_def("demo_shards")
    assert job.executor_def.name == "multiprocess"
    assert job.partitions_def is not None
    code = "import ov_assets.preload as p; print(len(p.LOADED.resolve_asset_graph().get_all_asset_keys()))"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) >= 7


def test_without_dagster_home_a_warning_names_the_fix(monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.warns(NoDagsterHomeWarning, match=r"export DAGSTER_HOME=.*dagster_home"):
        defs()


def test_with_dagster_home_there_is_no_warning(monkeypatch, tmp_path: Path, recwarn):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    defs()
    assert not [warning for warning in recwarn if warning.category is NoDagsterHomeWarning]


def test_the_lake_is_where_the_environment_says(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("OV_LAKE", str(tmp_path))
    tree = dg.ComponentTree.from_module(ov_assets.defs, PROJECT)
    demo = tree.load_component("demo", VideoDataset)
    assert demo.dataset_path.startswith(f"{tmp_path}/raw/demo/")
    assert demo.lane("demo", PROJECT).dataset.root == tmp_path / "demo"
    mixture = tree.load_component("demo_mixture", Mixture)
    assert mixture.spec("demo_mixture", {"demo": Path("x")}).out == tmp_path / "demo_mixture" / "mixture.jsonl"
    monkeypatch.delenv("OV_LAKE")
    assert lake_root() == PROJECT / "lake"


def test_the_instance_is_valid_quiet_and_never_waits_for_a_slot_of_the_dead(tmp_path: Path):
    settings = PROJECT / "dagster_home" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_text(settings.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.event_log_storage.get_pool_config().pool_granularity == PoolGranularity.RUN
    assert yaml.safe_load(settings.read_text())["concurrency"]["runs"]["max_concurrent_runs"] > 0


def test_dg_accepts_the_project():
    result = subprocess.run([Path(sys.executable).parent / "dg", "check", "defs"], cwd=PROJECT, capture_output=True)
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()
