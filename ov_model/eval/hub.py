"""The hub's side of a preparation: which files a data set has, whether we may have them, and each of them, resumably.

Through huggingface_hub, which finds the endpoint (HF_ENDPOINT) and, where none is given, the token by itself. Its own
download starts a file anew in each process, so the partial file is kept here and its `http_get` asked for the rest.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

from ov_model.errors import OvError
from ov_model.eval.archives import DiskFull, is_full, safe_path
from ov_model.eval.benchmarks import Benchmark
from ov_model.extras import require
from ov_model.lake.files import sync_folder
from ov_model.lake.layout import short_sha1

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

RETRIES = 4
WAIT = 1.0
_LONGEST_WAIT = 60.0
_TIMEOUT = 60.0
_CHUNK = 1 << 20
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class HubError(OvError):
    """The hub did not give what was asked for."""


class AccessError(HubError):
    """The hub wants a token, or the terms of a data set accepted, first."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository; `oid` is the SHA-256 of a large file, git's blob id (SHA-1) of a small one."""

    path: str
    size: int
    oid: str


@dataclass(frozen=True)
class Repository:
    """A data set at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]

    def select(self, patterns: tuple[str, ...], *, but: tuple[str, ...] = ()) -> list[RemoteFile]:
        """The files whose path fits a pattern and none of `but`, in path order; `*` fits slashes too."""
        return [
            file
            for file in self.files
            if any(fnmatchcase(file.path, pattern) for pattern in patterns)
            and not any(fnmatchcase(file.path, pattern) for pattern in but)
        ]


class Hub:
    """Requests to the hub with one token; each is tried `retries` times more after an answer that may pass by.

    Args:
        token: None for the one that huggingface_hub finds (HF_TOKEN, `hf auth login`).
        endpoint: the hub's address, None for huggingface_hub's (HF_ENDPOINT).
        wait: seconds before the second try; doubled each time, unless the hub's Retry-After says otherwise.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        endpoint: str | None = None,
        retries: int = RETRIES,
        wait: float = WAIT,
    ) -> None:
        require("eval", "huggingface_hub")
        from huggingface_hub import constants, get_token

        self.token = token or get_token()
        self.endpoint = endpoint or constants.ENDPOINT
        self.retries = retries
        self.wait = wait

    def repository(self, benchmark: Benchmark, revision: str) -> Repository:
        """The files of a benchmark's data set, under its name or a former one, once we know that we may have them.

        Raises:
            AccessError: it wants a token or its terms accepted.
            HubError: there is no such data set or revision, or the hub cannot be reached.
        """
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        names = (benchmark.repo, *benchmark.former_repos)
        for name in names:
            try:
                return self._repository(benchmark, name, revision)
            except GatedRepoError as error:
                raise self._refused(benchmark, name, error) from error
            except RepositoryNotFoundError:
                logger.info("%s: no data set %s", benchmark.name, name)
        login = "" if self.token else " The hub says the same of a private one: then `hf auth login` or set HF_TOKEN."
        raise HubError(f"{benchmark.name}: {self.endpoint} has no data set {' or '.join(names)}.{login}")

    def fetch(self, repository: Repository, file: RemoteFile, target: Path) -> int:
        """Download one file to `target`, going on from what an earlier call left, and check its size and hash.

        Returns the bytes that came; 0 where the file lay there already.

        Raises:
            HubError: the hub's answer, or a connection that was cut too often; what came is kept for the next call.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _matches(target, file):
            return 0
        name = short_sha1(target.name)
        partial = target.with_name(f".{name}.{file.oid[:16]}.partial")
        for stale in target.parent.glob(f".{name}.*.partial"):
            if stale != partial:
                stale.unlink()
        before = partial.stat().st_size if partial.exists() else 0
        what = f"{repository.name}/{file.path}"
        try:
            self._trying(what, lambda: self._continue(repository, file, partial))
        except OSError as error:
            if is_full(error):
                raise DiskFull(
                    f"{what}: no room left at {target.parent} ({error.strerror}); what came is kept: free some space "
                    "and run the same command to go on"
                ) from error
            raise
        if not _matches(partial, file):
            partial.unlink()
            raise HubError(f"{what}: what came is not what the hub announced (hash {file.oid[:12]}); run it again")
        os.replace(partial, target)
        sync_folder(target.parent)
        return file.size - min(before, file.size)

    def _repository(self, benchmark: Benchmark, name: str, revision: str) -> Repository:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        api = HfApi(self.endpoint, token=self.token or False)
        try:
            info = self._trying(
                name, lambda: api.dataset_info(name, revision=revision, files_metadata=True, timeout=_TIMEOUT)
            )
        except RevisionNotFoundError as error:
            raise HubError(
                f"{benchmark.name}: {name} has no revision {revision!r}; choose another: --revision"
            ) from error
        if info.gated:
            self._trying(name, lambda: api.auth_check(info.id, repo_type="dataset"), refused=(benchmark, info.id))
        if info.id != name:
            logger.info("%s: %s has moved to %s", benchmark.name, name, info.id)
        files = [_remote_file(sibling) for sibling in info.siblings or ()]
        for file in files:
            safe_path(file.path, f"data set {info.id}")
        return Repository(info.id, str(info.sha), tuple(sorted(files, key=lambda file: file.path)))

    def _continue(self, repository: Repository, file: RemoteFile, partial: Path) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        present = partial.stat().st_size if partial.exists() else 0
        if present > file.size:
            partial.unlink()
        if present == file.size:
            partial.touch()
            return
        url = hf_hub_url(
            repository.name, file.path, repo_type="dataset", revision=repository.commit, endpoint=self.endpoint
        )
        found = get_hf_file_metadata(url, token=self.token or False, timeout=_TIMEOUT, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token or False)
        if urlparse(found.location).netloc != urlparse(url).netloc:
            headers.pop("authorization", None)
        with open(partial, "ab") as stream:
            http_get(found.location, stream, resume_size=stream.tell(), headers=headers, displayed_filename=file.path)
            stream.flush()
            os.fsync(stream.fileno())
        if partial.stat().st_size < file.size:
            raise ConnectionError(f"{partial.stat().st_size} of {file.size} bytes came")

    def _trying(self, what: str, call: Callable[[], Result], *, refused: tuple[Benchmark, str] | None = None) -> Result:
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage] - httpx's or httpx2's, by the hub's version
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        for attempt in range(self.retries + 1):
            try:
                return call()
            except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
                raise
            except (HTTPError, ConnectionError) as error:
                status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if refused is not None and status in (401, 403):
                    raise self._refused(*refused, error) from error
                if attempt == self.retries or (status is not None and status not in _TRY_AGAIN):
                    raise self._failed(what, error, attempt + 1) from error
                pause = _retry_after(error)
                pause = min(self.wait * 2**attempt if pause is None else pause, _LONGEST_WAIT)
                logger.info("%s: %s; again in %.0f s", what, _first_line(error), pause)
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _failed(self, what: str, error: Exception, attempts: int) -> HubError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return AccessError(
                f"{what}: {self.endpoint} answers {status}; log in with an account that may read it: `hf auth login`, "
                "or set HF_TOKEN"
            )
        if status == 404:
            return HubError(f"{what}: {self.endpoint} answers 404: there is no such file at this revision (--update?)")
        if status == 429:
            return HubError(
                f"{what}: {self.endpoint} answers 429 (too many requests) after {attempts} tries; wait some minutes "
                "and run the same command: it goes on from here. A token (`hf auth login`) has a higher limit."
            )
        if status is not None:
            return HubError(
                f"{what}: {self.endpoint} answers {status} after {attempts} tries; run the same command later: it goes "
                "on from here"
            )
        return HubError(
            f"{what}: the connection to {self.endpoint} failed {attempts} times ({_first_line(error)}); run the same "
            "command when it stands: it goes on from here"
        )

    def _refused(self, benchmark: Benchmark, name: str, error: Exception) -> AccessError:
        status = getattr(getattr(error, "response", None), "status_code", "401")
        if self.token:
            who = "this token's account (or this token may not read gated data sets)"
        else:
            who = "a caller without a token"
        return AccessError(
            f"{benchmark.name}: the hub does not hand out {name} to {who} ({status}). "
            f"Accept its terms at {self.endpoint}/datasets/{name}, log in with `hf auth login` or set HF_TOKEN, "
            f"and run `ov benchmark prepare {benchmark.name}` again."
        )


def _remote_file(sibling: Any) -> RemoteFile:
    large = sibling.lfs
    oid = large["sha256"] if large else sibling.blob_id
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), str(oid))


def _matches(path: Path, file: RemoteFile) -> bool:
    size = path.stat().st_size
    if size != file.size:
        return False
    if len(file.oid) == 64:
        digest = hashlib.sha256()
    elif len(file.oid) == 40:
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:
        return True
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.oid


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After") if response is not None else None
    return float(value) if value and value.isdigit() else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
