"""Where settings come from, and that a cloned project gets nobody's token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qgjob.access import Access
from qgjob.config import Setting, access_of, dashboard_of, settings, user_file
from qgjob.errors import UsageError
from tests.cli.coordinator_stand_in import StandIn

QGJOB = str(Path(sys.executable).parent / "qgjob")
TOKEN = "t" * 40
THEIRS = 'coordinator = "theirs.example:1"\ninsecure = true\n'
NO_FLAGS: dict[str, str | None] = {}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing in it, in which we stand, and a user who has set nothing."""
    for name in [name for name in os.environ if name.startswith("QGJOB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user_file().parent.mkdir(parents=True)
    (tmp_path / "project" / "tests").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "tests")
    return tmp_path / "project"


def write(project: Path, text: str) -> None:
    (project / ".qgjob.toml").write_text(text)


def test_each_source_overrules_the_next(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file().write_text('coordinator = "user:1"\norg_id = "user"\n[profiles.lab]\norg_id = "profile"\n')
    assert settings(NO_FLAGS)["coordinator"] == Setting("user:1", str(user_file()))
    assert settings(NO_FLAGS, "lab")["org_id"].value == "profile"
    write(project, 'coordinator = "project:1"\norg_id = "project"\n')
    assert settings(NO_FLAGS)["coordinator"] == Setting("project:1", ".qgjob.toml")
    assert settings(NO_FLAGS, "lab")["org_id"].value == "project"
    monkeypatch.setenv("QGJOB_COORDINATOR", "variable:1")
    assert settings(NO_FLAGS)["coordinator"] == Setting("variable:1", "QGJOB_COORDINATOR")
    assert settings({"coordinator": "flag:1"})["coordinator"] == Setting("flag:1", "flag")


def test_a_token_of_the_environment_is_not_for_a_projects_coordinator(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, THEIRS)
    monkeypatch.setenv("QGJOB_TOKEN", TOKEN)
    with pytest.raises(
        UsageError, match=r"^the token from QGJOB_TOKEN is not sent to theirs\.example:1, which \.qgjob\.toml names$"
    ) as caught:
        access_of(settings(NO_FLAGS))
    assert caught.value.hint == (
        f'if it is meant for it, give --coordinator, or add trusted = ["theirs.example:1"] to {user_file()}'
    )


def test_a_token_of_the_users_file_is_not_for_a_projects_coordinator(project: Path) -> None:
    user_file().write_text(f'coordinator = "mine.example:1"\ntoken = "{TOKEN}"\n')
    write(project, THEIRS)
    with pytest.raises(UsageError, match="is not sent to"):
        access_of(settings(NO_FLAGS))


@pytest.mark.parametrize(
    "user", ['trusted = ["theirs.example:1"]', 'coordinator = "theirs.example:1"'], ids=["trusted", "coordinator"]
)
def test_a_coordinator_that_the_user_names_too_gets_it_but_never_as_the_project_wants(project: Path, user: str) -> None:
    user_file().write_text(f'{user}\ntoken = "{TOKEN}"\ntls_ca = "system"\n')
    write(project, THEIRS + 'tls_ca = "ca.pem"\ntoken = "theirs"\n')
    assert access_of(settings(NO_FLAGS)) == Access(token=TOKEN, tls_ca="system")


def test_one_trusted_address_among_several_is_not_enough(project: Path) -> None:
    user_file().write_text(f'trusted = ["theirs.example:1"]\ntoken = "{TOKEN}"\n')
    write(project, 'coordinator = "theirs.example:1,other.example:1"\n')
    with pytest.raises(UsageError, match="is not sent to"):
        access_of(settings(NO_FLAGS))


def test_a_project_says_nothing_of_the_way_to_the_users_coordinator(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGJOB_TOKEN", TOKEN)
    monkeypatch.setenv("QGJOB_COORDINATOR", "mine.example:1")
    write(project, 'insecure = true\ntls_ca = "ca.pem"\ntls_cert = "c"\ntls_key = "k"\ntoken_file = "token"\n')
    assert access_of(settings(NO_FLAGS)) == Access(token=TOKEN)


def test_a_project_opens_its_own_coordinator_with_its_own_token(project: Path) -> None:
    user_file().write_text(f'coordinator = "mine.example:1"\ntoken = "{TOKEN}"\n')
    write(project, THEIRS + f'token_file = "{project}/token"\ntls_ca = "ca.pem"\n')
    assert access_of(settings(NO_FLAGS)) == Access(token_file=f"{project}/token", tls_ca="ca.pem", is_insecure=True)


def test_a_project_sends_no_file_of_ours_as_its_token(project: Path) -> None:
    (project / "token").symlink_to(user_file())
    for path in (str(user_file()), "../../config/qgjob/config.toml", "../token"):
        write(project, THEIRS + f'token_file = "{path}"\n')
        with pytest.raises(UsageError, match=r"^token_file in \.qgjob\.toml leads out of the project$"):
            access_of(settings(NO_FLAGS))


def test_a_list_of_trusted_that_is_none_is_named(project: Path) -> None:
    write(project, THEIRS)
    user_file().write_text('trusted = "theirs.example:1"\n')
    with pytest.raises(UsageError, match=r"trusted in .* is no list of addresses"):
        settings(NO_FLAGS)


def test_config_view_shows_what_of_a_project_does_not_count(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGJOB_COORDINATOR", "mine.example:1")
    monkeypatch.setenv("QGJOB_TOKEN", TOKEN)
    write(project, 'insecure = true\ntoken = "theirs"\n')
    subprocess.run([QGJOB, "config", "view", "-o", "json"], timeout=60, check=True)
    out, err = capfd.readouterr()
    assert {one["name"]: one["source"] for one in json.loads(out)} == {
        "coordinator": "QGJOB_COORDINATOR",
        "token": "QGJOB_TOKEN",
        "output": "flag",
    }
    assert err == (
        "warning: token, insecure in .qgjob.toml do not count: they are for the coordinator that it names itself\n"
    )


def test_config_view_shows_that_a_token_is_not_sent(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QGJOB_TOKEN", TOKEN)
    write(project, THEIRS)
    subprocess.run([QGJOB, "config", "view", "-o", "json"], timeout=60, check=True)
    assert capfd.readouterr().err.splitlines()[0] == (
        "warning: the token from QGJOB_TOKEN is not sent to theirs.example:1, which .qgjob.toml names"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["jobs", "list"], 2), (["--version"], 0), (["doctor"], 2), (["jobs", "wait", ""], 0)],
    ids=["a command", "--version", "doctor", "completion"],
)
def test_nothing_calls_a_projects_coordinator_with_our_token(
    project: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, arguments: list[str], code: int
) -> None:
    monkeypatch.setenv("QGJOB_TOKEN", TOKEN)
    write(project, f'coordinator = "{stand_in.address}"\ninsecure = true\n')
    if arguments[-1] == "":
        monkeypatch.setenv("_QGJOB_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "qgjob jobs wait ")
        monkeypatch.setenv("COMP_CWORD", "3")
    done = subprocess.run([QGJOB, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, stand_in.calls) == (code, [])
    monkeypatch.setenv("QGJOB_COORDINATOR", stand_in.address)
    subprocess.run([QGJOB, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert stand_in.calls


@pytest.mark.parametrize("address", ["lab:8002", "javascript:alert(1)", "https://lab/) [x](http://other", "https://"])
def test_a_dashboard_that_is_no_web_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGJOB_DASHBOARD_URL", address)
    with pytest.raises(UsageError, match=r"from QGJOB_DASHBOARD_URL\) is no web address"):
        dashboard_of(settings(NO_FLAGS))


def test_doctor_finds_a_dashboard_with_which_no_submit_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGJOB_DASHBOARD_URL", "lab:8002")
    done = subprocess.run([QGJOB, "doctor", "-o", "json"], capture_output=True, text=True, timeout=60, check=False)
    (check,) = json.loads(done.stdout)
    assert (done.returncode, check["name"], check["finding"]) == (2, "settings", "failed")
    assert check["hint"] == "write it as in https://lab.example:8002"
