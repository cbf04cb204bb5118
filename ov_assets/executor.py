"""Which engine runs the steps: the YAML file that OV_EXECUTOR names, else processes of this machine.

    executor: ray                     # in_process, multiprocess, ray or k8s
    retries: 5                        # of a step whose machine was lost
    retry_delay: 30                   # seconds before each
    config: {ray: {runtime_env: {}}}  # of Dagster's executor of that name; {env: NAME} reads a variable

Shipped: deploy/ray.yaml, deploy/k8s.yaml. An engine is imported only where the file asks for it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import yaml
from dagster._config import validate_config
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ov_assets.environment import executor_file
from ov_model.errors import UsageError
from ov_model.extras import require

_WARM = {"forkserver": {"preload_modules": ["dagster", "ov_assets.preload"]}}
_ENGINES = {
    "in_process": ("dagster", "dagster", "in_process_executor"),
    "multiprocess": ("dagster", "dagster", "multiprocess_executor"),
    "ray": ("ray", "dagster_ray", "ray_executor"),
    "k8s": ("k8s", "dagster_k8s", "k8s_job_executor"),
}


class Engine(BaseModel):
    """What an executor file says; without one, few steps of a run at a time, forked from a warm server.

    `retries`: a step whose machine was lost is started again, elsewhere, and does what is left. On one machine the
    run is started again instead (run_retries in dagster.yaml).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    executor: Literal["in_process", "multiprocess", "ray", "k8s"] = "multiprocess"
    config: dict[str, Any] = Field(default_factory=lambda: {"max_concurrent": 2, "start_method": _WARM})
    retries: int = Field(default=0, ge=0)
    retry_delay: float = Field(default=30, ge=0)

    def definition(self) -> dg.ExecutorDefinition:
        """Dagster's executor, configured.

        Raises:
            MissingExtra: its package is not installed. UsageError: a configuration that it refuses.
        """
        extra, module, name = _ENGINES[self.executor]
        require(extra, module)
        executor: dg.ExecutorDefinition = getattr(importlib.import_module(module), name)
        checked = validate_config(executor.config_schema.config_type, self.config)
        if not checked.success:
            wrong = "; ".join(error.message for error in checked.errors or [])
            raise UsageError(f"the executor {self.executor} refuses its config: {wrong}")
        return executor.configured(self.config)

    @property
    def retry(self) -> dg.RetryPolicy | None:
        """Of a step that was lost with its machine."""
        return dg.RetryPolicy(max_retries=self.retries, delay=self.retry_delay) if self.retries else None


def engine() -> Engine:
    """The engine that the environment asks for."""
    path = executor_file()
    return Engine() if path is None else read_engine(path)


def read_engine(path: Path) -> Engine:
    """An executor file.

    Raises:
        UsageError: no such file, or not what this module's text describes.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"OV_EXECUTOR: {path} cannot be read: {error}") from error
    if not isinstance(values, dict) or "executor" not in values:
        raise UsageError(f"OV_EXECUTOR: {path} names no executor; expected one of {', '.join(_ENGINES)}")
    try:
        return Engine.model_validate({"config": {}, **values})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise UsageError(f"OV_EXECUTOR: {path}: {wrong}") from error
