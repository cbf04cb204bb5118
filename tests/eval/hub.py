"""A small hub on 127.0.0.1 that speaks Hugging Face's routes, for the real huggingface_hub and datasets libraries.

    with hub() as local:
        local.add(fixture("videomme", tmp_path))
        subprocess.run([...], env=local.environment(home))

Faults are switched on by request: `local.fail("*.zip", 500, times=2)`, `local.cut("*.zip", after=1000)`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_local"
_LARGE = 4096


@dataclass
class Commit:
    """The files of a repository at one commit."""

    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        """Hash of names and contents, 40 hexadecimal digits."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, data in sorted(self.files.items()):
            digest.update(f"{path}\0{hashlib.sha256(data).hexdigest()}\0".encode())
        return digest.hexdigest()


@dataclass
class Repo:
    """A data set: its branches, and whether only accounts that accepted its terms may have it."""

    name: str
    branches: dict[str, Commit]
    gated: bool = False
    accepted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put a new commit on a branch; older ones stay reachable by their hash. Returns its hash."""
        commit = Commit(dict(files))
        self.branches[branch] = commit
        self.commits[commit.sha] = commit
        return commit.sha

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch or a hash names."""
        return self.branches.get(revision) or self.commits.get(revision)


@dataclass
class Fault:
    """What happens to requests whose path fits `pattern`, after `skip` of them, `times` times (None: always)."""

    pattern: str
    status: int = 0
    after: int = 0
    times: int | None = None
    retry_after: int | None = None
    skip: int = 0
    hold: bool = False


class LocalHub:
    """The server and what it serves; `requests` lists (method, path, Range) of all that came."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()
        self.healed = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, fixture: Any, *, gated: bool = False, name: str = "") -> Repo:
        """Serve a fixture (anything with repo, branch and files)."""
        return self.put(name or fixture.repo, fixture.files, branch=fixture.branch, gated=gated)

    def put(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", gated: bool = False) -> Repo:
        """Serve a data set."""
        repo = self.repos.setdefault(name, Repo(name, {}))
        repo.gated = gated
        repo.commit(files, branch)
        return repo

    def move(self, old: str, new: str) -> None:
        """Answer requests for the old name with a redirect to the new one."""
        self.moved[old] = new

    def fail(
        self, pattern: str, status: int, *, times: int | None = None, retry_after: int | None = None, skip: int = 0
    ) -> None:
        """Answer with an error."""
        self.faults.append(Fault(pattern, status=status, times=times, retry_after=retry_after, skip=skip))

    def cut(self, pattern: str, after: int, *, times: int | None = None) -> None:
        """Close the connection after so many bytes of a body."""
        self.faults.append(Fault(pattern, after=after, times=times))

    def hold(self, pattern: str, after: int) -> None:
        """Send so many bytes of a body, then nothing until `heal`."""
        self.faults.append(Fault(pattern, after=after, hold=True))

    def heal(self) -> None:
        """Switch all faults off."""
        self.faults.clear()
        self.healed.set()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment of a process that uses this hub with its own Hugging Face folder beside the benchmark home."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "LMMS_"))}
        folder = home.parent / f"{home.name}_account"
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            **({"HF_TOKEN": token} if token else {}),
        }

    def downloads(self, pattern: str = "*") -> list[str]:
        """Paths of the files whose bodies were asked for, in order."""
        found = (
            path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in self.requests if method == "GET"
        )
        return [path for path in found if path and fnmatchcase(path, pattern)]

    def fault(self, path: str, *, body: bool) -> Fault | None:
        """The fault that a request meets; counted as met."""
        with self.lock:
            for fault in self.faults:
                if not fnmatchcase(path, fault.pattern) or fault.times == 0 or not (fault.status or body):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range") or ""))
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            self._json(
                {"name": "someone", "type": "user"} if self._token() else {"error": "no"}, 200 if self._token() else 401
            )
        elif parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._repository("/".join(parts[2:4]), parts[4:], path)
        elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), path)
        else:
            self._error(404, "EntryNotFound")

    def _repository(self, name: str, rest: list[str], path: str) -> None:
        if name in self.hub.moved:
            return self._redirect(self.path.replace(name, self.hub.moved[name], 1))
        fault = self.hub.fault(path, body=False)
        if fault is not None:
            return self._fail(fault)
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._error(404 if self._token() else 401, "RepoNotFound")
        if rest == ["auth-check"]:
            return self._json({}) if self._may(repo) else self._gated(repo)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repo.at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound")
        if not rest or rest[0] == "revision":
            return self._json(_info(repo, commit))
        if rest[0] == "tree":
            below = "/".join(rest[2:])
            return self._json([entry for entry in _tree(commit) if entry["path"].startswith(below)])
        if rest[0] == "paths-info":
            wanted = json.loads(self.body).get("paths", [])
            return self._json([entry for entry in _tree(commit) if entry["path"] in wanted])
        return self._error(404, "EntryNotFound")

    def _file(self, name: str, revision: str, file: str, path: str) -> None:
        if name in self.hub.moved:
            return self._redirect(self.path.replace(name, self.hub.moved[name], 1))
        fault = self.hub.fault(path, body=self.command == "GET")
        if fault is not None and fault.status:
            return self._fail(fault)
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._error(404 if self._token() else 401, "RepoNotFound")
        if not self._may(repo):
            return self._gated(repo)
        commit = repo.at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound")
        data = commit.files.get(file)
        if data is None:
            return self._error(404, "EntryNotFound")
        return self._send(data, commit, fault)

    def _send(self, data: bytes, commit: Commit, fault: Fault | None) -> None:
        start, end = 0, len(data)
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{_oid(data)}"')
        self.send_header("X-Repo-Commit", commit.sha)
        if len(data) >= _LARGE:
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-ETag", f'"{_oid(data)}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and end - start > fault.after:
            self.wfile.write(data[start : start + fault.after])
            self.wfile.flush()
            if fault.hold:
                self.hub.healed.wait(120)
            self.close_connection = True
            return
        self.wfile.write(data[start:end])

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _may(self, repo: Repo) -> bool:
        return not repo.gated or self._token() in repo.accepted

    def _gated(self, repo: Repo) -> None:
        self._error(403 if self._token() else 401, "GatedRepo", f"Access to dataset {repo.name} is restricted.")

    def _fail(self, fault: Fault) -> None:
        self._error(fault.status, "", "as asked for by the test", retry_after=fault.retry_after)

    def _error(self, status: int, code: str, message: str = "", retry_after: int | None = None) -> None:
        body = json.dumps({"error": message or code}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message or code or str(status))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self._body(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self.send_response(status)
        self._body(json.dumps(value).encode())

    def _body(self, body: bytes) -> None:
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _redirect(self, location: str) -> None:
        self.send_response(307)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def hub() -> Iterator[LocalHub]:
    """A running hub."""
    local = LocalHub()
    thread = threading.Thread(target=local.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield local
    finally:
        local.server.shutdown()
        local.server.server_close()
        thread.join()


def _oid(data: bytes) -> str:
    if len(data) >= _LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _lfs(data: bytes) -> dict[str, Any] | None:
    return (
        {"sha256": _oid(data), "oid": _oid(data), "size": len(data), "pointerSize": 130}
        if len(data) >= _LARGE
        else None
    )


def _info(repo: Repo, commit: Commit) -> dict[str, Any]:
    siblings = [
        {"rfilename": path, "size": len(data), "blobId": _oid(data)[:40], **({"lfs": _lfs(data)} if _lfs(data) else {})}
        for path, data in commit.files.items()
    ]
    return {
        "_id": "0", "id": repo.name, "sha": commit.sha, "private": False, "disabled": False, "downloads": 0, "likes": 0,
        "gated": "auto" if repo.gated else False, "tags": [], "siblings": siblings,
    }  # fmt: skip


def _tree(commit: Commit) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": _oid(data)[:40],
            **({"lfs": _lfs(data)} if _lfs(data) else {}),
        }
        for path, data in commit.files.items()
    ]
