"""The process below which runs execute: `python -m ov_assets.runner --host 127.0.0.1 --port 4001`.

Dagster's gRPC server for the same definitions as the code location; `ov_assets.launcher` sends every run to it. The web
server, the daemon, the code location and the database can come and go; runs in progress stay here.

SIGTERM or Ctrl-C drains: no new run is taken, those in progress end in their own time, then the process ends with 0. A
second signal ends them at once; a run that is lost, so or otherwise, is found by the daemon and started again.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer
from dagster._utils.log import configure_loggers

LOCATION, MODULE = "ov_assets", "ov_assets.definitions"
_LOG = logging.getLogger("dagster.code_server")


class RunServer(DagsterApiServer):
    """Dagster's server, which drains when told, and which outlives its database.

    Dagster's own thread that writes down what became of ended runs dies of its first failed query, and the server then
    never notices an end again. Here it tries again at its next tick.
    """

    def drain(self) -> None:
        """Take no new run, and end once those in progress have."""
        self._shutdown_once_executions_finish_event.set()

    def current(self) -> list[str]:
        """Ids of the runs in progress."""
        return list(self._executions)

    def _check_for_orphaned_runs(self) -> None:
        try:
            super()._check_for_orphaned_runs()
        except Exception as error:
            _LOG.warning("Could not write down how runs ended; trying again: %s", error)


def serve(host: str, port: int) -> int:
    """Serve until a signal comes and all runs have ended.

    Raises:
        dagster._core.errors.CouldNotBindGrpcServerToAddress: the port is taken.
    """
    configure_loggers(log_level="INFO")
    ended = threading.Event()
    threads = FuturesAwareThreadPoolExecutor()
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE, working_directory=os.getcwd())
    runs = RunServer(
        server_termination_event=ended,
        server_threadpool_executor=threads,
        logger=_LOG,
        loadable_target_origin=target,
        location_name=LOCATION,
        inject_env_vars_from_instance=False,
    )
    server = DagsterGrpcServer(ended, runs, _LOG, threads, host=host, port=port)
    asked: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            runs.drain()
            _LOG.info("Draining: waiting for %s", ", ".join(runs.current()) or "nothing")
        else:
            for process in multiprocessing.active_children():
                process.kill()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    _LOG.info("Runs execute below %s:%s, process %d", host, port, os.getpid())
    server.serve()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and serve."""
    parser = argparse.ArgumentParser(prog="python -m ov_assets.runner", description="Runs execute below this server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=4001, help="default: 4001")
    chosen = parser.parse_args(arguments)
    return serve(chosen.host, chosen.port)


if __name__ == "__main__":
    sys.exit(main())
