"""docker-compose.yml without Docker: its commands and configuration files, real Postgres, nginx and Dagster."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ov_model.demo import write_raw_dataset
from tests.services.graphql import ENDED, Dagster, wait
from tests.services.stack import USER, Stack, alive, children, free_ports, listens

SHARDS = ["shard00of02", "shard01of02"]
LONG = 600.0


def end(dagster: Dagster, run: str) -> str:
    """How a run ended."""

    def status() -> str | None:
        found = dagster.status(run)
        return found if found in ENDED else None

    return wait(f"the end of run {run}", status, LONG)


@contextmanager
def held(stack: Stack, run: str) -> Iterator[list[int]]:
    """A run that has started stays in progress while this lasts: its processes, these, stand still."""
    wait("the run to start", lambda: stack.dagster().status(run) == "STARTED", LONG)
    pids = children(stack.processes["runner"].pid)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGCONT)


def retries(stack: Stack, run: str) -> list[str]:
    """Runs that were started because this one failed."""
    return [each["runId"] for each in stack.dagster().runs() if each["parentRunId"] == run]


@pytest.fixture(scope="module")
def records(stack: Stack) -> Stack:
    """The stack, and the demo's raw dataset read in it."""
    write_raw_dataset(stack.lake / "raw" / "demo")
    run = wait("the code location", lambda: stack.dagster().launch("demo/records"), LONG)
    assert end(stack.dagster(), run) == "SUCCESS"
    return stack


def test_only_who_has_the_password_gets_in(stack: Stack) -> None:
    assert stack.dagster("", "").get()[0] == 401
    assert stack.dagster(USER, "wrong").get()[0] == 401
    assert stack.dagster("grace", "correct horse battery").get()[0] == 401
    assert stack.dagster().get()[0] == 200
    assert stack.dagster().query("{ version }")["version"]


def test_tensorboard_is_behind_the_same_door(stack: Stack) -> None:
    assert stack.dagster("", "").get("/tensorboard/")[0] == 401
    assert stack.dagster().get("/tensorboard/data/runs") == (200, "[]")


def test_another_sites_page_cannot_use_the_login_of_a_browser(stack: Stack) -> None:
    dagster = stack.dagster()
    assert dagster.get("/graphql?query={version}", Origin="https://elsewhere.example")[0] == 403
    assert dagster.get("/graphql?query={version}", Origin="null")[0] == 403
    assert dagster.get("/graphql?query={version}", Origin=dagster.url)[0] == 200


def upgrade(stack: Stack, dagster: Dagster, **headers: str) -> int:
    """The status of opening the web socket over which the UI hears of new events."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports["proxy"], timeout=30)
    asked = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    asked |= {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Protocol": "graphql-ws"}
    with contextlib.closing(connection):
        connection.request("GET", "/graphql", headers={**asked, **dagster.login(), **headers})
        return connection.getresponse().status


def test_live_events_pass_the_proxy_for_who_may_see_them(stack: Stack) -> None:
    assert upgrade(stack, stack.dagster()) == 101
    assert upgrade(stack, stack.dagster(), Origin="https://elsewhere.example") == 403
    assert upgrade(stack, stack.dagster("", "")) == 401


def test_the_proxy_speaks_tls_where_it_has_a_certificate(stack: Stack) -> None:
    folder = stack.folder / "tls"
    shutil.copytree(stack.folder / "proxy", folder)
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"]
    subprocess.run(make, check=True, capture_output=True)
    (folder / "tls.key").chmod(0o644)
    (port,) = free_ports(1)
    with stack.another_proxy(OV_PROXY_FOLDER=str(folder), OV_PROXY_LISTEN=f"127.0.0.1:{port}", OV_PROXY_BIND="0.0.0.0"):
        wait("the proxy", lambda: listens(port), 30)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, context=ssl.create_default_context(cafile=f"{folder}/tls.crt"), timeout=30
        )
        with contextlib.closing(connection):
            connection.request("GET", "/server_info", headers=stack.dagster().login())
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"]


def test_the_proxy_tells_whether_it_lives_without_a_password_and_no_more(stack: Stack) -> None:
    assert stack.dagster("", "").get("/healthz") == (200, "ok\n")
    assert stack.dagster("", "").get("/server_info")[0] == 401


def refusal(stack: Stack, **changes: str) -> str:
    """Why the proxy does not start."""
    environment = stack.proxy_environment(**{"OV_PROXY_RUN": str(stack.folder / "refused"), **changes})
    start = stack.folder / "docker-proxy" / "start.sh"
    done = subprocess.run([start], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 78
    return done.stderr


def test_the_proxy_starts_with_no_default_password(stack: Stack) -> None:
    folder = stack.folder / "nobody"
    folder.mkdir()
    assert "users is missing" in refusal(stack, OV_PROXY_FOLDER=str(folder))
    (folder / "users").write_text("# none yet\n")
    assert "names nobody" in refusal(stack, OV_PROXY_FOLDER=str(folder))
    (folder / "users").write_text("ada:in-plain-text-in-plain-text\n")
    assert "names nobody" in refusal(stack, OV_PROXY_FOLDER=str(folder))


def test_the_proxy_shows_no_password_to_the_network(stack: Stack) -> None:
    assert "without TLS" in refusal(stack, OV_PROXY_BIND="0.0.0.0")
    (stack.folder / "half").mkdir()
    (stack.folder / "half" / "users").write_text((stack.folder / "proxy" / "users").read_text())
    (stack.folder / "half" / "tls.crt").write_text("")
    assert "needs both" in refusal(stack, OV_PROXY_FOLDER=str(stack.folder / "half"))


def test_a_short_password_and_an_odd_name_are_refused(stack: Stack) -> None:
    before = (stack.folder / "proxy" / "users").read_bytes()
    assert "12 are needed" in stack.add_user("grace", "short").stderr
    assert "usage" in stack.add_user("a:b", "correct horse battery").stderr
    assert (stack.folder / "proxy" / "users").read_bytes() == before


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    ports = {f"{port:04X}" for port in stack.ports.values()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
    listening = [line[1].split(":") for line in lines if line[3] == "0A" and line[1].split(":")[1] in ports]
    assert {port for _, port in listening} == ports
    assert {address for address, _ in listening} <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_a_backfill_launched_through_the_proxy_ends_and_decodes_a_shard_at_a_time(records: Stack) -> None:
    dagster = records.dagster()
    backfill = dagster.backfill("demo/raw_videos", "demo/visidx", partitions=SHARDS)
    together = 0

    def over() -> bool:
        nonlocal together
        together = max(together, len(dagster.runs(statuses=["STARTING", "STARTED"])))
        return dagster.backfill_status(backfill) == "COMPLETED_SUCCESS"

    wait("the backfill", over, LONG)
    assert together == 1
    assert len(list((records.lake / "demo").rglob("visidx.shard*.parquet"))) == 2


def test_replacing_web_server_and_daemon_ends_no_run(records: Stack) -> None:
    run = records.dagster().launch("demo/raw_videos", partition=SHARDS[0])
    with held(records, run):
        for service in ("webserver", "daemon"):
            records.stop(service)
            records.start(service)
        wait("the web server", lambda: records.dagster().status(run) == "STARTED", LONG)
    assert end(records.dagster(), run) == "SUCCESS"


def test_a_restart_of_postgres_ends_no_run_and_no_service(records: Stack) -> None:
    run = records.dagster().launch("demo/raw_videos", partition=SHARDS[0])
    with held(records, run):
        records.stop("postgres", signal.SIGINT)
        records.start("postgres")
    assert end(records.dagster(), run) == "SUCCESS"
    assert all(process.poll() is None for process in records.processes.values())
    assert end(records.dagster(), first_click(records)) == "SUCCESS"


def test_a_run_that_dies_while_postgres_is_away_is_found_when_it_is_back(records: Stack) -> None:
    lost = records.dagster().launch("demo/raw_videos", partition=SHARDS[0])
    with held(records, lost) as pids:
        records.stop("postgres", signal.SIGINT)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait("its end to be noticed", lambda: "Could not write down" in records.log("runner").read_text(), 120)
        records.start("postgres")
    assert end(records.dagster(), lost) == "FAILURE"
    again = wait("the second try", lambda: retries(records, lost), LONG)
    assert end(records.dagster(), again[0]) == "SUCCESS"
    assert end(records.dagster(), first_click(records)) == "SUCCESS"


def first_click(stack: Stack) -> str:
    """The run of a first launch after a restart of Postgres: the web server notices by one that fails."""
    return wait("a launch", lambda: stack.dagster().launch("demo/records"))


def test_a_runner_that_is_told_to_end_lets_its_run_end_and_takes_no_other(records: Stack) -> None:
    dagster = records.dagster()
    first = dagster.launch("demo/raw_videos", partition=SHARDS[0])
    with held(records, first):
        records.processes["runner"].send_signal(signal.SIGTERM)
        second = dagster.launch("demo/raw_videos", partition=SHARDS[1])
    assert end(dagster, first) == "SUCCESS"
    assert records.processes.pop("runner").wait(60) == 0
    assert dagster.status(second) == "QUEUED"
    records.start("runner")
    assert end(dagster, second) == "SUCCESS"


def test_a_run_lost_with_its_runner_is_found_and_started_again(records: Stack) -> None:
    dagster = records.dagster()
    lost = dagster.launch("demo/raw_videos", partition=SHARDS[0])
    with held(records, lost) as pids:
        records.stop("runner", signal.SIGKILL)
    wait("all its processes to be gone", lambda: not any(map(alive, pids)), 60)
    records.start("runner")
    assert end(dagster, lost) == "FAILURE"
    again = wait("the second try", lambda: retries(records, lost), LONG)
    assert end(dagster, again[0]) == "SUCCESS"
    third = dagster.launch("demo/raw_videos", partition=SHARDS[0])
    assert end(dagster, third) == "SUCCESS", "the lost run kept its place in the pool"


def test_ports_are_free_when_all_has_ended() -> None:
    made = Stack.make()
    try:
        made.start("postgres")
        assert listens(made.ports["postgres"])
    finally:
        made.close()
    assert not listens(made.ports["postgres"])
    assert len(set(free_ports(3))) == 3
