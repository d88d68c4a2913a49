"""Which specs may be cut in two, by the real Playwright, and what is left of one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.process import capture
from agent.runners.appwright_project import playwright
from agent.runners.appwright_rest import LIST_OPTIONS, Rest, rest_of
from examples import node_packages

EXAMPLE = Path(__file__).parents[3] / "examples" / "wikipedia"
ONE, TWO = 'test("one", () => {});', 'test("two", () => {});'

CONFIG = """
module.exports = { projects: [{ name: "qgjob", testDir: "tests" }] };
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with Playwright, whose specs the tests write."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "node_modules").symlink_to(node_packages.install(EXAMPLE))
    (folder / "playwright.config.js").write_text(CONFIG)
    (folder / "tests").mkdir()
    return folder


async def listed(project: Path, name: str, body: str) -> Path:
    """Let Playwright list a spec, and return what the lister wrote."""
    (project / "tests" / f"{name}.spec.js").write_text('const { test } = require("@playwright/test");\n' + body)
    listing = project / f"{name}.json"
    command = (*playwright(project), "test", f"{name}.spec.js", "--config", str(project / "playwright.config.js"))
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "QGJOB_LISTING": str(listing), "HOME": str(project)}
    await capture((*command, *LIST_OPTIONS), env=env, timeout_s=60)
    return listing


@pytest.mark.appwright
async def test_only_specs_whose_tests_stand_for_themselves_are_divisible(project: Path) -> None:
    plain = f'{ONE} test.beforeEach(() => {{}}); test.describe("group", () => {{ {TWO} }});'
    specs = {
        "plain": plain,
        "serial_group": f'{ONE} test.describe.serial("group", () => {{ {TWO} }});',
        "before_all": f"test.beforeAll(() => {{}}); {ONE} {TWO}",
        "after_all_in_a_group": f'{ONE} test.describe("group", () => {{ test.afterAll(() => {{}}); {TWO} }});',
        "retried": f"test.describe.configure({{ retries: 1 }}); {ONE} {TWO}",
        "odd_title": f'{ONE} test("one \u203a two", () => {{}});',
        "beginning_of_another": f'{ONE} test.describe("one", () => {{ {TWO} }});',
    }
    listings = await asyncio.gather(*(listed(project, name, body) for name, body in specs.items()))
    found = {name: list(json.loads(path.read_bytes()).values()) for name, path in zip(specs, listings, strict=True)}
    assert found.pop("plain") == ["tests/plain.spec.js \u203a one", "tests/plain.spec.js \u203a group \u203a two"]
    assert found == {name: [] for name in found}


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "listing.json"
    path.write_text(
        json.dumps({"a": "x.spec.ts \u203a one", "b": "x.spec.ts \u203a two", "c": "x.spec.ts \u203a three"})
    )
    return path


def test_rest_is_what_was_not_done_in_the_order_of_the_spec(listing: Path, tmp_path: Path) -> None:
    rest = rest_of(listing, ["b"])
    assert rest == Rest(lines=("x.spec.ts \u203a one", "x.spec.ts \u203a three"), total=3)
    assert rest is not None
    _, path = rest.options(tmp_path)
    assert Path(path).read_text() == "x.spec.ts \u203a one\nx.spec.ts \u203a three\n"
    assert rest.told() == "qgjob: 1 of 3 tests were done by an earlier attempt"


def test_nothing_is_left_of_a_spec_whose_tests_were_all_done(listing: Path) -> None:
    assert rest_of(listing, ["a", "b", "c"]) == Rest(lines=(), total=3)


@pytest.mark.parametrize(
    "text", ["{}", None, '{"a": "x.spec.ts \u203a one"}'], ids=["tied", "not loaded", "another spec"]
)
def test_whole_spec_runs_where_it_cannot_be_told_what_is_left(listing: Path, text: str | None) -> None:
    if text is None:
        listing.unlink()
    else:
        listing.write_text(text)
    assert rest_of(listing, ["b"]) is None
