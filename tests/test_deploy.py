"""docker-compose.yml and docker/: what they promise, and that the programs which read them accept them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ov_assets.environment import PROJECT, default_dagster_home
from tests.conftest import require_or_skip

DOCKER = PROJECT / "docker"
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GUARDED = pytest.mark.parametrize("service", sorted(SERVICES))


def program(name: str) -> str:
    """A program of the extra `deploy`."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        require_or_skip("compose", f"{name} is not installed: make install EXTRAS=dagster,dev,deploy")
    assert found
    return found


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the project's folder."""
    return subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of what docker/setup and docker/add-user are part of."""
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    return tmp_path


def test_the_compose_file_keeps_to_the_specification() -> None:
    done = run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("profiles", ["cpu", "gpu", "cpu,ray", "gpu,ray"])
def test_docker_compose_takes_the_file_with_each_profile(profiles: str) -> None:
    done = run(program("docker-compose"), "--env-file", DOCKER / "example.env", "config", COMPOSE_PROFILES=profiles)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    runners = {"runner" if "cpu" in profiles else "runner-gpu"}
    services = yaml.safe_load(done.stdout)["services"]
    assert {name for name in services if name.startswith("runner")} == runners
    assert {name for name in services if name.startswith("ray")} == (
        {"ray-head", "ray-worker"} if "ray" in profiles else set()
    )


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    done = run(program("hadolint"), "--config", DOCKER / "hadolint.yaml", DOCKER / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_proxy_is_the_only_published_port_and_stays_on_this_host() -> None:
    assert [name for name, service in SERVICES.items() if service.get("ports")] == ["proxy"]
    assert SERVICES["proxy"]["ports"] == ["${OV_BIND:-127.0.0.1}:${OV_PORT:-8080}:8080"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert set(SERVICES["proxy"]["networks"]) == {"door"}


@GUARDED
def test_a_service_has_no_more_rights_than_it_needs(service: str) -> None:
    found = SERVICES[service]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["read_only"] is True
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(found)
    allowed = {"postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}, "runner-gpu": {"IPC_LOCK"}}
    assert set(found.get("cap_add", [])) == allowed.get(service, set())
    assert service == "postgres" or found["user"] == "${OV_UID:-1000}:${OV_GID:-1000}"
    assert "docker.sock" not in str(found)


@GUARDED
def test_a_service_is_watched_restarted_and_bounded(service: str) -> None:
    found = SERVICES[service]
    assert found["healthcheck"]["test"][0] == "CMD"
    assert found["restart"] == "unless-stopped"
    assert set(found["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert found["logging"]["options"]["max-file"] == "5"


def test_the_gpu_runner_has_what_nccl_needs() -> None:
    gpu = SERVICES["runner-gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert gpu["shm_size"] == "${OV_SHM:-16gb}"
    assert gpu["ulimits"]["memlock"] == -1
    assert gpu["networks"]["inside"]["aliases"] == ["runner"]


def test_every_setting_of_the_compose_file_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (PROJECT / "docker-compose.yml").read_text()))
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / "example.env").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    assert used - set(example) == {"OV_RAY_ADDRESS"}
    assert set(example) - used == {"COMPOSE_PROFILES"}
    assert not [name for name in example if re.search("PASSWORD|TOKEN|SECRET", name)]


def test_the_instance_reads_only_what_the_compose_file_sets() -> None:
    read = set(
        re.findall(r"env: ([A-Z_]+)", (DOCKER / "dagster.yaml").read_text() + (DOCKER / "workspace.yaml").read_text())
    )
    given = set(COMPOSE["x-environment"]) | {"OV_POSTGRES_PASSWORD"}
    assert read == given - {"OV_POSTGRES_PASSWORD_FILE", "OV_LOG_DAYS"}


def test_both_instances_agree_on_all_but_where_things_are() -> None:
    local = yaml.safe_load((default_dagster_home() / "dagster.yaml").read_text())
    shared = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    assert {key for key in shared if shared[key] != local.get(key)} == {"storage", "run_coordinator", "run_launcher"}
    assert set(local) | {"storage"} == set(shared)


def test_the_images_are_built_for_the_cuda_of_the_pinned_torch() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    (pinned,) = re.findall(
        r"^nvidia-cuda-runtime==(\d+)\.(\d+)", (PROJECT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert f"nvidia/cuda:{pinned[0]}.{pinned[1]}." in text
    assert f"TORCH_BACKEND=cu{pinned[0]}{pinned[1]}" in text


def test_secrets_are_neither_committed_nor_built_in() -> None:
    for path in (".env", "docker/secrets/postgres_password", "docker/secrets/proxy/users"):
        assert run("git", "check-ignore", "--quiet", path).returncode == 0
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert "docker/secrets" in lines


def test_setup_makes_a_password_of_its_own_and_keeps_it(copied: Path) -> None:
    secret = copied / "docker" / "secrets" / "postgres_password"
    assert run(copied / "docker" / "setup", "--gpu").returncode == 0
    first = secret.read_text()
    assert len(first.strip()) == 48
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert "COMPOSE_PROFILES=gpu" in (copied / ".env").read_text()
    (copied / ".env").write_text("COMPOSE_PROFILES=cpu\n")
    assert run(copied / "docker" / "setup").returncode == 0
    assert secret.read_text() == first
    assert (copied / ".env").read_text() == "COMPOSE_PROFILES=cpu\n"


def test_without_a_secret_nothing_starts(tmp_path: Path) -> None:
    command = (DOCKER / "entrypoint.sh", "echo", "started")
    empty = tmp_path / "password"
    for path in (empty, tmp_path / "missing"):
        empty.touch()
        done = run(*command, OV_POSTGRES_PASSWORD_FILE=str(path))
        assert (done.returncode, done.stdout) == (78, "")
        assert "docker/setup" in done.stderr
    empty.write_text("secret\n")
    assert run(*command, OV_POSTGRES_PASSWORD_FILE=str(empty)).stdout == "started\n"
