"""Whose sessions are used, and that the key stays where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.browserstack.account import Account, AccountUnusable, read_account


def credentials(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_file_with_one_line_names_the_account_and_nothing_shows_its_key(tmp_path: Path) -> None:
    account = read_account(credentials(tmp_path / "bs", "lab_user:hunter2secret\n"))
    assert (account.username, account.access_key) == ("lab_user", "hunter2secret")
    assert account.name == "lab_user@api-cloud.browserstack.com"
    assert "hunter2" not in repr(account)


def test_environment_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSERSTACK_USERNAME", "lab_user")
    monkeypatch.setenv("BROWSERSTACK_ACCESS_KEY", "hunter2secret")
    assert read_account("env").access_key == "hunter2secret"


@pytest.mark.parametrize("text", ["", "lab_user", "lab_user:", ":key", "lab user:key", "a:b:c", "a:b\nc:d"])
def test_file_with_anything_else_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(AccountUnusable, match="does not hold one line USERNAME:ACCESS_KEY"):
        read_account(credentials(tmp_path / "bs", text))


def test_file_that_everybody_can_read_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = credentials(tmp_path / "bs", "lab_user:hunter2secret", 0o644)
    with pytest.raises(AccountUnusable, match=f"chmod 600 {path}"):
        read_account(path)


def test_missing_file_and_missing_variables_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSERSTACK_USERNAME", raising=False)
    with pytest.raises(AccountUnusable, match="No such file"):
        read_account(str(tmp_path / "nowhere"))
    with pytest.raises(AccountUnusable, match="BROWSERSTACK_USERNAME and BROWSERSTACK_ACCESS_KEY are not set"):
        read_account("env")


@pytest.mark.parametrize(
    "url", ["http://api.example.org", "ftp://127.0.0.1", "https://", "https://u:p@example.org", "https://a.example?x=1"]
)
def test_address_over_which_the_key_would_travel_in_the_open_is_refused(url: str) -> None:
    with pytest.raises(AccountUnusable, match="is no address that credentials may be sent to"):
        Account(username="lab_user", access_key="k", api_url=url)
