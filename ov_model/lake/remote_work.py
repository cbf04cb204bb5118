"""A job whose medium or root is behind a URL: fetch what it reads, do it here, send what it made.

The clock of a sample stands still while bytes travel; the network has its own timeouts.
"""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path

from ov_model.errors import MissingFile, MissingVisidx
from ov_model.lake.store import RemoteStore
from ov_model.lake.work import Job, Result, do_job, stage1_files
from ov_model.lake.workers import BASE_TIMEOUT, set_deadline
from ov_model.mosaic.write import is_older


def do_anywhere(job: Job) -> dict[str, Result]:
    """Run a job wherever its medium and its root are; as `do_job`.

    Raises:
        MissingFile: the medium went away, or changed, since it was looked at.
        StorageError: the storage cannot be reached.
    """
    if job.remote is None and job.store is None:
        return do_job(job)
    set_deadline(0)
    with ExitStack() as stack:
        path = job.path
        if job.remote is not None:
            try:
                path = stack.enter_context(job.scratch.borrow(job.remote))
            except (FileNotFoundError, PermissionError) as error:
                raise MissingFile(f"{job.remote.url}: cannot be read ({error.strerror or error}); run again") from error
        if job.store is not None and job.mosaics is not None and job.mosaics.prefix is not None:
            stack.callback(_discard, _fetch_stage1(job.store, job.mosaics.prefix))
        set_deadline(job.timeout or BASE_TIMEOUT)
        results = do_job(replace(job, path=path, remote=None, store=None))
        set_deadline(0)
        if job.store is not None:
            for name, result in results.items():
                job.store.publish(result.outputs)
                if name == "mosaics" and job.mosaics is not None and result.error is None:
                    _remove_older(job.store, job.mosaics.folder, result)
                    job.mosaics.folder.rmdir()
        return {name: _about(result, path, job) for name, result in results.items()}


def _fetch_stage1(store: RemoteStore, prefix: Path) -> list[Path]:
    paths = stage1_files(prefix)
    for path in paths:
        if not store.pull(path.relative_to(store.local).as_posix()).exists():
            raise MissingVisidx(f"{store.place}: {path.name} is gone; run stage 1 with --overwrite")
    return paths


def _discard(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _remove_older(store: RemoteStore, folder: Path, result: Result) -> None:
    """Remove the mosaics and positions of other options that lie beside those just sent."""
    made = {path.name for path in result.outputs}
    key = folder.relative_to(store.local).as_posix()
    store.remove_all([f"{key}/{name}" for name in store.names(key) if is_older(name, made)])


def _about(result: Result, path: Path, job: Job) -> Result:
    """A result whose error names the URL instead of its local copy."""
    if result.error is None or job.remote is None or str(path) not in str(result.error):
        return result
    error = copy(result.error)
    error.args = (str(error).replace(str(path), str(job.remote.url)),)
    return replace(result, error=error)
