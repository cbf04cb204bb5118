"""Without a cluster: the settings load, and the jobs that would be created ask for what the steps need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from ov_assets.definitions import defs
from ov_assets.environment import PROJECT
from ov_assets.executor import read_engine
from tests.assets.runs import RunPlayground
from tests.conftest import require_or_skip

try:
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import (
        UserDefinedDagsterK8sConfig,
        construct_dagster_k8s_job,
        get_user_defined_k8s_config,
    )
except ImportError:
    require_or_skip("k8s", "dagster-k8s is not installed: make install EXTRAS=dagster,train,eval,k8s,dev")
    raise

pytestmark = pytest.mark.filterwarnings("ignore::ov_assets.environment.NoDagsterHomeWarning")


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run launcher of the shipped instance, as in a pod; the cluster's API is never called."""
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
    monkeypatch.setenv("OV_IMAGE", "registry.example/ov-lake:1")
    monkeypatch.setenv("OV_NAMESPACE", "videos")
    (tmp_path / "dagster.yaml").write_text((PROJECT / "deploy" / "k8s-instance.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert isinstance(instance.run_launcher, K8sRunLauncher)
        yield instance.run_launcher


def job_of(step: dg.AssetsDefinition, launcher: Any) -> dict[str, Any]:
    """The Kubernetes job of an asset's step, by the merging that dagster-k8s does."""
    steps = yaml.safe_load((PROJECT / "deploy" / "k8s.yaml").read_text())["config"]["step_k8s_config"]
    context = launcher.get_container_context_for_run(_run())
    context = context.merge(K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(steps)))
    context = context.merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(step.op.tags)))
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(None, launcher),
        ["dagster", "api", "execute_step"],
        "step",
        user_defined_k8s_config=context.run_k8s_config,
    )
    return job.to_dict()


def _run() -> Any:
    from dagster._core.test_utils import create_run_for_test

    with dg.DagsterInstance.ephemeral() as instance:
        return create_run_for_test(instance, "job")


def test_the_executor_accepts_the_shipped_file() -> None:
    found = read_engine(PROJECT / "deploy" / "k8s.yaml")
    assert found.definition().name == "k8s"
    assert found.retry is not None


def test_a_decoding_step_asks_for_its_workers(launcher: Any) -> None:
    job = job_of(defs().get_assets_def(dg.AssetKey(["demo", "visidx"])), launcher)
    assert job["spec"]["ttl_seconds_after_finished"] == 3600
    pod = job["spec"]["template"]["spec"]
    assert pod["service_account_name"] == "ov"
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/ov-lake:1"
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "10240Mi"}
    assert container["resources"]["limits"] == {"memory": "10240Mi"}
    assert {each["name"]: each["value"] for each in container["env"]}["OV_EXECUTOR"] == "deploy/k8s.yaml"
    assert "/lake" in {mount["mount_path"] for mount in container["volume_mounts"]}


def test_a_training_step_asks_for_its_gpus_and_their_shared_memory(launcher: Any, tmp_path: Path) -> None:
    run = RunPlayground(tmp_path, tmp_path / "train.jsonl", dg.DagsterInstance.ephemeral()).assets(nproc=8)
    steps = {
        step.key.path[-1]: step for step in run.definitions().assets or [] if isinstance(step, dg.AssetsDefinition)
    }
    pod = job_of(steps["checkpoint"], launcher)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == {"cpu": "8", "memory": "262144Mi"}
    assert container["resources"]["limits"] == {"memory": "262144Mi", "nvidia.com/gpu": "8"}
    assert {mount["mount_path"] for mount in container["volume_mounts"]} >= {"/lake", "/dev/shm"}
    assert {volume["name"] for volume in pod["volumes"]} >= {"lake", "shm"}
    lengths = job_of(steps["token_lengths"], launcher)["spec"]["template"]["spec"]["containers"][0]
    assert lengths["resources"]["requests"]["cpu"] == "1"
