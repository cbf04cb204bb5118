"""The engine that runs the steps is chosen by a file, and each step says to it what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ov_assets.definitions import defs
from ov_assets.environment import PROJECT
from ov_assets.executor import Engine, engine, read_engine
from ov_assets.needs import KUBERNETES, RAY, Need, need_of_processes, need_of_workers
from ov_model.errors import OvError, UsageError
from ov_model.extras import MissingExtra
from ov_model.lake.workers import RunOptions
from tests.assets.lanes import Playground

pytestmark = pytest.mark.filterwarnings("ignore::ov_assets.environment.NoDagsterHomeWarning")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "engine.yaml"
    path.write_text(text)
    return path


def tags_of(asset: str) -> dict[str, Any]:
    """What a step of the project says to the engines."""
    node = defs().get_assets_def(dg.AssetKey(asset.split("/"))).op
    return {name: json.loads(node.tags[name]) for name in (RAY, KUBERNETES)}


def test_without_a_file_steps_are_processes_here_and_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OV_EXECUTOR", raising=False)
    assert engine() == Engine()
    assert engine().definition().name == "multiprocess"
    assert engine().retry is None


def test_a_file_is_found_from_the_project_and_says_who_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OV_EXECUTOR", "deploy/ray.yaml")
    found = engine()
    assert found.executor == "ray"
    assert found.retry == dg.RetryPolicy(max_retries=5, delay=30)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("executor: [", "cannot be read"),
        ("config: {}", "names no executor; expected one of in_process, multiprocess, ray, k8s"),
        ("executor: slurm", "executor: Input should be"),
        ("executor: ray\nretry: 3", "retry: Extra inputs"),
        ("executor: ray\nretries: -1", "retries: Input should be greater"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=r"OV_EXECUTOR: .*engine\.yaml") as raised:
        read_engine(written(tmp_path, text))
    assert told in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read"):
        read_engine(tmp_path / "none.yaml")


def test_a_config_that_the_engine_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the executor multiprocess refuses its config: .*processes"):
        read_engine(written(tmp_path, "executor: multiprocess\nconfig: {processes: 3}")).definition()


@pytest.mark.parametrize(("name", "module"), [("ray", "dagster_ray"), ("k8s", "dagster_k8s")])
def test_an_engine_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == module else find_spec(wanted))
    with pytest.raises(MissingExtra, match=rf"{module} not installed; run: pip install 'ov-lake\[{name}\]'"):
        Engine.model_validate({"executor": name, "config": {}}).definition()


def test_an_engine_is_imported_only_where_it_is_asked_for() -> None:
    code = (
        "import sys, ov_assets.preload; print(*{'ray', 'dagster_ray', 'dagster_k8s', 'kubernetes'} & set(sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OV_EXECUTOR"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_step_that_decodes_needs_a_cpu_and_the_memory_limit_of_each_worker() -> None:
    assert need_of_workers(RunOptions(num_workers=8, memory_gb=3)) == Need(cpus=8, memory_gb=26)
    assert need_of_workers(RunOptions(num_workers=0)).cpus == 1
    for stage in ("raw_videos", "visidx", "mosaics"):
        tags = tags_of(f"demo/{stage}")
        assert tags[RAY] == {"num_cpus": 2, "num_gpus": 0, "memory": 10 * 2**30}
        assert tags[KUBERNETES]["container_config"]["resources"] == {
            "requests": {"cpu": "2", "memory": "10240Mi"},
            "limits": {"memory": "10240Mi"},
        }
    for asset in ("demo/records", "demo/training_jsonl", "demo/train_jsonl", "demo_mixture/mixture", "leaderboard"):
        assert tags_of(asset)[RAY]["num_cpus"] == 1


def test_a_training_needs_a_gpu_for_each_process_and_shared_memory() -> None:
    need = need_of_processes(8, cpus=5)
    assert need == Need(cpus=40, memory_gb=256, gpus=8)
    config = need.op_tags[KUBERNETES]
    assert config["container_config"]["resources"]["limits"] == {"memory": "262144Mi", "nvidia.com/gpu": "8"}
    assert config["container_config"]["volume_mounts"] == [{"name": "shm", "mount_path": "/dev/shm"}]
    assert need_of_processes(1, cpus=2, gpus=False).gpus == 0
    assert tags_of("tiny/checkpoint")[RAY] == {"num_cpus": 1, "num_gpus": 0, "memory": 8 * 2**30}
    assert tags_of("tiny/scores")[RAY]["num_gpus"] == 0
    with pytest.raises(OvError, match="0 CPUs"):
        Need(cpus=0)


def test_what_a_step_needs_is_no_change_of_its_asset(playground: Playground) -> None:
    playground.write([])
    versions = []
    for workers in (1, 8):
        graph = dg.Definitions.merge(playground.lane(workers=workers).definitions()).resolve_asset_graph()
        versions.append({node.key: node.code_version for node in graph.asset_nodes})
    assert versions[0] == versions[1]


def test_a_lost_step_is_tried_again_only_where_the_engine_says_so(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    playground.write([])
    policies = []
    for path in ("deploy/ray.yaml", None):
        monkeypatch.setenv("OV_EXECUTOR", path or "")
        (first, *_) = playground.lane().definitions().assets or []
        policies.append(first.op.retry_policy)  # pyright: ignore[reportAttributeAccessIssue]
    assert policies == [dg.RetryPolicy(max_retries=5, delay=30), None]
