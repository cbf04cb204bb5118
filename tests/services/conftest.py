"""Real services, one set of them for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import require_or_skip
from tests.services.stack import Stack, nginx_program, postgres_program, stack_of

ORDER = ("postgres", "runner", "code", "webserver", "daemon", "tensorboard", "proxy")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything that docker-compose.yml starts, up."""
    pytest.importorskip(
        "dagster_postgres", reason="dagster-postgres is not installed: make install EXTRAS=...,postgres"
    )
    if any(postgres_program(name) is None for name in ("initdb", "postgres", "psql")):
        require_or_skip("postgres", "Postgres's server is not installed: apt-get install postgresql")
    if nginx_program() is None:
        require_or_skip("proxy", "nginx is not installed: apt-get install nginx-light")
    yield from stack_of(ORDER)
