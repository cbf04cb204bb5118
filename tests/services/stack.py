"""The services of docker-compose.yml as processes: its commands and configuration files, at this machine's addresses.

Every service is a process group of its own and is ended by its id. Where the tests run as root, Postgres and nginx run
as `nobody`, below a folder that it can reach.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ov_assets.environment import PROJECT
from tests.services.graphql import Dagster, wait

USER, PASSWORD = "ada", "correct horse battery"
PORTS = {
    "postgres": "5432",
    "code": "4000",
    "runner": "4001",
    "webserver": "3000",
    "tensorboard": "6006",
    "proxy": "8080",
}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port: int) -> bool:
    """Whether something takes connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def postgres_program(name: str) -> str | None:
    """A program of Postgres's server; Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(found[0]) if found else None)


def nginx_program() -> str | None:
    """nginx; /usr/sbin is not on everybody's path."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def compose_file() -> dict[str, Any]:
    """docker-compose.yml, its anchors resolved."""
    return yaml.safe_load((PROJECT / "docker-compose.yml").read_text())


@dataclass
class Stack:
    """All services below one folder; `start` and `stop` any of them."""

    folder: Path
    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[Any]] = field(default_factory=dict)

    @classmethod
    def make(cls) -> Stack:
        """Folders, secrets and ports; starts nothing."""
        folder = Path(tempfile.mkdtemp(prefix="ov-stack-"))
        folder.chmod(0o755)
        stack = cls(folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
        for name in ("home", "lake", "proxy", "run", "database"):
            (folder / name).mkdir()
        for name in ("run", "database"):
            _give_away(folder / name)
        # As the image has it: where an unprivileged user can read it.
        shutil.copytree(PROJECT / "docker" / "proxy", folder / "docker-proxy")
        shutil.copy(PROJECT / "docker" / "dagster.yaml", folder / "home")
        (folder / "password").write_text("a password of Postgres\n")
        return stack

    @property
    def lake(self) -> Path:
        """The lake's root."""
        return self.folder / "lake"

    @property
    def environment(self) -> dict[str, str]:
        """What the compose file sets for Dagster's services, with this machine's addresses."""
        declared = {name: str(value) for name, value in compose_file()["x-environment"].items()}
        addresses = {
            f"OV_{name.upper()}_{what}": value
            for name in ("postgres", "code", "runner")
            for what, value in (("HOST", "127.0.0.1"), ("PORT", str(self.ports[name])))
        }
        return {
            **os.environ,
            **declared,
            **addresses,
            "OV_LOG_DAYS": "90",
            "OV_POSTGRES_PASSWORD_FILE": str(self.folder / "password"),
            "DAGSTER_HOME": str(self.folder / "home"),
            "OV_LAKE": str(self.lake),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(PROJECT),
        }

    def command(self, service: str) -> list[str]:
        """A service's command from the compose file, on 127.0.0.1 and its port here, through the image's entrypoint."""
        given = [self._here(part) for part in compose_file()["services"][service]["command"]]
        return [str(PROJECT / "docker" / "entrypoint.sh"), *given]

    def start(self, service: str) -> None:
        """Start a service and wait until it listens (the daemon: until its process is up)."""
        {"postgres": self._start_postgres, "proxy": self._start_proxy}.get(
            service, lambda: self._start_dagster(service)
        )()
        if service in self.ports:
            wait(f"{service} listening; see {self.log(service)}", lambda: self._up(service))

    def stop(self, service: str, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal to a service's process (SIGKILL: to its group) and wait for the end; its exit code."""
        process = self.processes.pop(service)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        return process.wait(seconds)

    def close(self) -> None:
        """End everything and remove the folder."""
        for service in list(self.processes):
            process = self.processes.pop(service)
            if process.poll() is None and service == "postgres":
                process.send_signal(signal.SIGINT)
                process.wait(60)
            _kill_group(process)
        shutil.rmtree(self.folder)

    def log(self, service: str) -> Path:
        """What a service printed."""
        return self.folder / f"{service}.log"

    def dagster(self, user: str = USER, password: str = PASSWORD) -> Dagster:
        """Dagster through the proxy."""
        return Dagster(f"http://127.0.0.1:{self.ports['proxy']}", user, password)

    def add_user(self, name: str, password: str) -> subprocess.CompletedProcess[str]:
        """docker/add-user with the password from a pipe."""
        return subprocess.run(
            [PROJECT / "docker" / "add-user", name],
            input=f"{password}\n",
            env={**os.environ, "OV_PROXY_FOLDER": str(self.folder / "proxy")},
            capture_output=True,
            text=True,
        )

    def proxy_environment(self, **changes: str) -> dict[str, str]:
        """What docker/proxy/start.sh is told."""
        return {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin",
            "OV_PROXY_FOLDER": str(self.folder / "proxy"),
            "OV_PROXY_RUN": str(self.folder / "run"),
            "OV_PROXY_LISTEN": f"127.0.0.1:{self.ports['proxy']}",
            "OV_PROXY_WEBSERVER": f"127.0.0.1:{self.ports['webserver']}",
            "OV_PROXY_TENSORBOARD": f"127.0.0.1:{self.ports['tensorboard']}",
            **changes,
        }

    @contextlib.contextmanager
    def another_proxy(self, **changes: str) -> Iterator[None]:
        """A second proxy in front of the same services while this lasts."""
        run = self.folder / "another"
        run.mkdir()
        _give_away(run)
        environment = self.proxy_environment(OV_PROXY_RUN=str(run), **changes)
        self._popen("another", [str(self.folder / "docker-proxy" / "start.sh")], environment, **_unprivileged())
        try:
            yield
        finally:
            self.stop("another")

    def _start_dagster(self, service: str) -> None:
        extra = {}
        if service == "tensorboard":
            extra = {
                "OV_TENSORBOARD_PORT": str(self.ports["tensorboard"]),
                "OV_TENSORBOARD_LINKS": str(self.folder / "links"),
            }
        self._popen(service, self.command(service), {**self.environment, **extra})

    def _start_postgres(self) -> None:
        data = self.folder / "database" / "data"
        declared = compose_file()["services"]["postgres"]["environment"]
        if not data.exists():
            password = self.folder / "database" / "password"
            shutil.copy(self.folder / "password", password)
            password.chmod(0o644)
            program = postgres_program("initdb")
            assert program
            arguments = [f"--username={declared['POSTGRES_USER']}", f"--pwfile={password}", "--auth=scram-sha-256"]
            arguments += ["--encoding=UTF8", "--no-sync", f"--pgdata={data}"]
            subprocess.run([program, *arguments], check=True, capture_output=True, cwd="/", **_unprivileged())
        program = postgres_program("postgres")
        assert program
        command = [program, "-D", str(data), "-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-k", ""]
        self._popen("postgres", command, os.environ, **_unprivileged())
        wait(f"Postgres; see {self.log('postgres')}", lambda: self._psql("select 1", "postgres") == "1")
        if not self._psql(f"select 1 from pg_database where datname = '{declared['POSTGRES_DB']}'", "postgres"):
            self._psql(f"create database {declared['POSTGRES_DB']}", "postgres")

    def _start_proxy(self) -> None:
        self._popen(
            "proxy", [str(self.folder / "docker-proxy" / "start.sh")], self.proxy_environment(), **_unprivileged()
        )

    def _psql(self, query: str, database: str) -> str:
        program = postgres_program("psql")
        assert program
        password = (self.folder / "password").read_text().strip()
        place = ["--host=127.0.0.1", f"--port={self.ports['postgres']}", "--username=ov", f"--dbname={database}"]
        done = subprocess.run(
            [program, *place, "--no-password", "--tuples-only", "--no-align", f"--command={query}"],
            env={**os.environ, "PGPASSWORD": password},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _popen(self, service: str, command: list[str], environment: Mapping[str, str], **options: Any) -> None:
        log = self.log(service)
        log.touch()
        log.chmod(0o666)
        with log.open("ab") as output:
            self.processes[service] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd="/" if options else PROJECT,
                start_new_session=True,
                **options,
            )

    def _up(self, service: str) -> bool:
        code = self.processes[service].poll()
        if code is not None:
            raise RuntimeError(f"{service} ended with {code}: {self.log(service).read_text()[-2000:]}")
        return listens(self.ports[service])

    def _here(self, part: str) -> str:
        port = {number: self.ports[name] for name, number in PORTS.items()}.get(part)
        part = part.replace("/app/", f"{PROJECT}/")
        return "127.0.0.1" if part == "0.0.0.0" else str(port) if port else part


def children(pid: int) -> list[int]:
    """All processes below one, itself not among them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and does more than wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stack_of(services: tuple[str, ...]) -> Iterator[Stack]:
    """A stack with these services up, ended afterwards."""
    stack = Stack.make()
    try:
        made = stack.add_user(USER, PASSWORD)
        assert made.returncode == 0, made.stderr
        for service in services:
            stack.start(service)
        yield stack
    finally:
        stack.close()


def _unprivileged() -> dict[str, Any]:
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")


def _kill_group(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
