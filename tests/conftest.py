from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from sqlalchemy import create_engine, text

from coordinator.store.dialect import checked_url
from examples import tools
from tests.postgresql import running_postgresql

ANDROID_TOOLS = ("adb", "aapt", "apksigner", "zipalign", "keytool")
NEEDS = {
    "appwright": tuple(tools.PACKAGES),
    "android_tools": ANDROID_TOOLS,
    "node": ("node", "npm"),
    "jq": tuple(tools.HANDY),
}
# A busy machine takes long for any example: how long says nothing of the code.
hypothesis.settings.register_profile("lab", deadline=None)
hypothesis.settings.load_profile("lab")

MISSING = [*tools.missing_tools(), *tools.missing_handy_tools()]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here. In CI that is a failure: a skip would hide that it was not tested."""
    for marker, needed in NEEDS.items():
        missing = [tool for tool in needed if tool in MISSING]
        if item.get_closest_marker(marker) is None or not missing:
            continue
        reason = f"missing: {', '.join(missing)}; `make tools` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _fresh_diagnostics() -> Iterator[None]:
    """A program's entry points diagnostics at the stderr of the test that called it, which is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A server on which tests may make and drop databases: the one of QGJOB_TEST_POSTGRESQL_URL, or its own."""
    given = os.environ.get("QGJOB_TEST_POSTGRESQL_URL")
    if given:
        yield given
        return
    with running_postgresql() as server:
        yield server.url


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[str]:
    """An empty database on PostgreSQL."""
    name = f"qgjob_{uuid.uuid4().hex}"
    server = create_engine(checked_url(postgresql_url), isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.url.set(database=name).render_as_string(hide_password=False)
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        server.dispose()
