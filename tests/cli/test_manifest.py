"""`submit --from`: what a manifest says, and who overrules whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from qgjob.cli.wish import Manifest, Wish, read_manifest, specs_of
from qgjob.errors import UsageError
from qgjob.v1.job_pb2 import TARGET_ANY, TARGET_DEVICE, JobSpec

TEXT = """
org_id = "qualgent"
app_version_id = "xyz123"
priority = 2
env = { STAGE = "beta", LANG = "en" }
labels = { suite = "smoke" }

[[specs]]
test = "tests/critical.spec.ts"
priority = 5
target = "device"
retries = 2
timeout = "90s"

[[specs]]
test = "tests/login.spec.ts"
app_version_id = "abc456"
env = { STAGE = "alpha" }
selector = { model = "Pixel*" }
"""


def manifest(folder: Path, text: str = TEXT) -> Manifest:
    path = folder / "manifest.toml"
    path.write_text(text)
    return read_manifest(path)


def specs(folder: Path, flags: Wish, *tests: str, text: str = TEXT) -> list[JobSpec]:
    return specs_of(flags, tests, manifest(folder, text), Wish(org_id="of-settings"))


def test_each_spec_has_its_own_priority_and_the_rest_from_the_top(tmp_path: Path) -> None:
    critical, login = specs(tmp_path, Wish())
    assert (critical.test, critical.priority, critical.target, critical.retries) == (
        "tests/critical.spec.ts",
        5,
        TARGET_DEVICE,
        2,
    )
    assert critical.timeout.ToMilliseconds() == 90_000
    assert (login.priority, login.target, login.timeout.seconds) == (2, TARGET_ANY, 600)
    assert [spec.org_id for spec in (critical, login)] == ["qualgent", "qualgent"]
    assert [spec.app_version_id for spec in (critical, login)] == ["xyz123", "abc456"]
    assert dict(login.env) == {"STAGE": "alpha", "LANG": "en"}
    assert dict(login.selector) == {"model": "Pixel*"}
    assert dict(critical.labels) == {"suite": "smoke"}


def test_flags_overrule_the_top_of_a_manifest_but_not_its_specs(tmp_path: Path) -> None:
    critical, login, more = specs(tmp_path, Wish(org_id="other", priority=4, labels={"pr": "7"}), "tests/more.spec.ts")
    assert [spec.priority for spec in (critical, login, more)] == [5, 4, 4]
    assert {spec.org_id for spec in (critical, login, more)} == {"other"}
    assert dict(more.labels) == {"suite": "smoke", "pr": "7"}
    assert more.test == "tests/more.spec.ts"


def test_settings_fill_in_what_nobody_says(tmp_path: Path) -> None:
    (spec,) = specs(tmp_path, Wish(), text='app_version_id = "a"\n[[specs]]\ntest = "t.spec.ts"')
    assert (spec.org_id, spec.priority) == ("of-settings", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "is no TOML"),
        ("org_id = 'a'", "has no specs"),
        ("specs = ['a.spec.ts']", "has no specs"),
        ("specs = []", "has no specs"),
        ("prioritty = 3\n[[specs]]\ntest = 'a'", "prioritty is no field"),
        ("test = 'a'\n[[specs]]\ntest = 'a'", "test is no field"),
        ("[[specs]]\ntest = 'a'\norg_id = 'b'", "spec 1: org_id is no field"),
        ("[[specs]]\ntest = 'a'\npriority = 'high'", "spec 1: priority is not a whole number"),
        ("[[specs]]\ntest = 'a'\npriority = true", "spec 1: priority is not a whole number"),
        ("[[specs]]\ntest = 'a'\nenv = { A = 1 }", "spec 1: env is not a table of texts"),
        ("[[specs]]\ntest = 'a'\n[[specs]]\ntest = 'b'\npriority = 9", "spec 2: priority 9 is out of range"),
        ("[[specs]]\npriority = 3", "spec 1: test is empty"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        specs(tmp_path, Wish(app_version_id="a"), text=text)
    assert said in str(caught.value)
    assert "manifest.toml" in str(caught.value)


def test_a_manifest_without_specs_may_speak_for_the_tests_beside_it(tmp_path: Path) -> None:
    (spec,) = specs(tmp_path, Wish(), "tests/a.spec.ts", text="app_version_id = 'a'\npriority = 4\nspecs = []")
    assert (spec.test, spec.priority) == ("tests/a.spec.ts", 4)


def test_the_manifest_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    assert [(spec.test, spec.priority) for spec in specs(tmp_path, Wish(), text=text)] == [
        ("tests/critical.spec.ts", 5),
        ("tests/login.spec.ts", 2),
    ]


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.toml"):
        read_manifest(tmp_path / "none.toml")
