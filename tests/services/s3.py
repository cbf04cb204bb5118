"""A real S3-compatible server on loopback, and processes that work a lake on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.layout import Shard
from ov_model.lake.scratch import Scratch
from ov_model.lake.urls import Url, filesystem, location

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """A running server; `environment` is what its clients need."""

    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]


@contextmanager
def serve() -> Iterator[Server]:
    """moto's server as a process of its own, on a free port of 127.0.0.1, until the context ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("moto_server")
    command = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server never answered"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield Server(process, {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    finally:
        process.kill()
        process.wait()


def upload(folder: Path, url: Url, pattern: str = "*") -> None:
    """Put the files of a folder behind a URL."""
    fs = filesystem("s3")
    fs.mkdirs(url.path.partition("/")[0], exist_ok=True)
    for path in folder.glob(pattern):
        if path.is_file():
            fs.put_file(str(path), (url / path.name).path)


def objects(url: Url) -> dict[str, bytes]:
    """Every object below a URL but the ledgers."""
    fs = filesystem("s3")
    names = [name for name in fs.find(url.path) if f"{url.path}/ledger/" not in name]
    return {name.removeprefix(f"{url.path}/"): fs.cat_file(name) for name in names}


def work(dataset: Dataset) -> dict[str, Any]:
    """The whole lane of a one-shard dataset."""
    shard = Shard(0, 1)
    reports = {"records": dataset.index_records(), "raw_videos": dataset.raw_videos(shard)}
    reports["visidx"], reports["mosaics"] = dataset.visidx_and_mosaics(shard)
    reports["training_jsonl"] = dataset.training_jsonl(shard)
    reports["train_jsonl"] = dataset.train_jsonl()
    return reports


def start_lane(spec: DatasetSpec, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The same in a process of its own; what it can't do ends it with an error on stderr."""
    options = {"root": str(spec.root), "raw": str(spec.dataset_path), "media": str(spec.media_root)}
    options["scratch"] = str(spec.scratch.folder)
    command = [sys.executable, "-m", "tests.services.s3", json.dumps(options)]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _main() -> None:
    from tests.lake.lanes import small_spec

    options = json.loads(sys.argv[1])
    spec = small_spec(
        location(options["raw"]),
        location(options["root"]),
        media_root=location(options["media"]),
        scratch=Scratch(Path(options["scratch"]), 1),
    )
    work(Dataset(spec))


if __name__ == "__main__":
    _main()
