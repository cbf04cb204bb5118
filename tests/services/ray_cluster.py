"""A Ray cluster on this machine: nodes with ports and processes of their own, as on several machines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

GIB = 2**30
HOST = "127.0.0.2"
"""Loopback, which Ray would replace by the machine's outer address were it 127.0.0.1."""


@dataclass
class RayNode:
    """`ray start --block` in a process group of its own."""

    process: subprocess.Popen[bytes]

    @property
    def raylet(self) -> int:
        """Process number of the node's raylet."""
        found = [pid for pid in _children(self.process.pid) if _command(pid).endswith("raylet")]
        assert found, "the node has no raylet"
        return found[0]

    def stop(self) -> None:
        """End all of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class RayCluster:
    """A head and nodes that join it; `folder` must have a short path, for it holds sockets."""

    folder: Path
    nodes: list[RayNode] = field(default_factory=list)
    gcs: int = 0
    dashboard: int = 0

    @property
    def address(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.dashboard}"

    def add_node(self, cpus: int, memory_gb: int) -> RayNode:
        """Start the head, or a node beside it, with so many CPUs and so much memory to give away."""
        ports = iter(free_ports(7))
        if self.nodes:
            role = [f"--address={HOST}:{self.gcs}"]
        else:
            self.gcs, self.dashboard = next(ports), next(ports)
            role = ["--head", f"--port={self.gcs}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
            role += [f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder}"]
            role += [f"--ray-client-server-port={next(ports)}"]
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats", *role,
            f"--node-ip-address={HOST}", f"--num-cpus={cpus}", "--num-gpus=0", f"--memory={memory_gb * GIB}",
            f"--object-store-memory={80 * 2**20}", "--min-worker-port=0", "--max-worker-port=0",
            *(f"--{name}={next(ports)}" for name in names),
        ]  # fmt: skip
        log = open(self.folder.parent / f"{self.folder.name}.{len(self.nodes)}.log", "wb")
        # As in a shell with the environment active; a proxy would stand between the nodes.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "no_proxy": f"127.0.0.1,{HOST}"}
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        log.close()
        node = RayNode(process)
        self.nodes.append(node)
        self._wait(node, Path(log.name))
        return node

    def stop(self) -> None:
        """End every node, the head last."""
        for node in reversed(self.nodes):
            node.stop()

    def _wait(self, node: RayNode, log: Path) -> None:
        deadline = time.monotonic() + 180
        while True:
            assert node.process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            if "Ray runtime started" in log.read_text() and self._answers():
                return
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.address}/api/version", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
    finally:
        for found in sockets:
            found.close()


def ancestors(pid: int) -> list[int]:
    """The processes above one, nearest first; none where it has ended."""
    found = []
    while (pid := _parent(pid)) > 1:
        found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """The processes below one, parents first."""
    parents = {int(entry.name): _parent(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _children(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _parent(int(entry.name)) == pid]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
