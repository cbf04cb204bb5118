"""What a step needs of the machine it runs on: CPUs, memory, GPUs, told to every engine from one definition.

Ray and Kubernetes place a step by it; on one machine, pools and the run queue do (dagster_home/dagster.yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg

from ov_model.errors import UsageError
from ov_model.lake.workers import RunOptions

RAY, KUBERNETES = "dagster-ray/config", "dagster-k8s/config"
STEP_GB = 2.0
TRAINING_GB = 32.0
_SHARED_MEMORY = "shm"
_SHARED_GB = 16


@dataclass(frozen=True)
class Need:
    """CPUs, memory in GiB and GPUs of one step."""

    cpus: float = 1
    memory_gb: float = STEP_GB
    gpus: int = 0

    def __post_init__(self) -> None:
        if not (self.cpus > 0 and self.memory_gb > 0 and self.gpus >= 0):
            raise UsageError(
                f"a step would need {self.cpus} CPUs, {self.memory_gb} GB and {self.gpus} GPUs; "
                "CPUs and memory must be more than 0, GPUs not less"
            )

    @property
    def op_tags(self) -> dict[str, Any]:
        """The tags of a step that dagster-ray and dagster-k8s read."""
        return {RAY: self._ray(), KUBERNETES: self._kubernetes()}

    def _ray(self) -> dict[str, Any]:
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": int(self.memory_gb * 2**30)}

    def _kubernetes(self) -> dict[str, Any]:
        memory = f"{int(self.memory_gb * 1024)}Mi"
        limits = {"memory": memory}
        container: dict[str, Any] = {
            "resources": {"requests": {"cpu": f"{self.cpus:g}", "memory": memory}, "limits": limits}
        }
        if not self.gpus:
            return {"container_config": container}
        limits["nvidia.com/gpu"] = str(self.gpus)
        container["volume_mounts"] = [{"name": _SHARED_MEMORY, "mount_path": "/dev/shm"}]
        shared = {"name": _SHARED_MEMORY, "empty_dir": {"medium": "Memory", "size_limit": f"{_SHARED_GB}Gi"}}
        return {"container_config": container, "pod_spec_config": {"volumes": [shared]}}


class NeedAttributes(dg.Model, dg.Resolvable):
    """CPUs, memory in GiB and GPUs of a step, for Ray and Kubernetes; unset: worked out from its other options."""

    cpus: float | None = None
    memory_gb: float | None = None
    gpus: int | None = None

    def over(self, need: Need) -> Need:
        """A need with these values instead of its own, where they are set."""
        return Need(**{**vars(need), **self.model_dump(exclude_none=True)})


def need_of_workers(options: RunOptions) -> Need:
    """A CPU and the memory limit for each worker, and what the step takes itself."""
    workers = max(1, options.num_workers)
    return Need(cpus=workers, memory_gb=STEP_GB + workers * options.memory_gb)


def need_of_processes(processes: int, cpus: int, gpus: bool = True) -> Need:
    """For each process a GPU (unless it has none), so many CPUs and TRAINING_GB of memory."""
    return Need(cpus=processes * cpus, memory_gb=processes * TRAINING_GB, gpus=processes if gpus else 0)
