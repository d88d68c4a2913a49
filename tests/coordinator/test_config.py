"""Where a coordinator may listen, and what it needs for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from coordinator.config import ConfigError, TlsFiles, checked_listen, checked_tls, parsed_shares
from coordinator.tls import server_credentials
from coordinator.tokens import Role, TokenFile, parse_tokens

TOKEN = "0123456789abcdef"


def refused(listen: str, *, has_tls: bool, has_tokens: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        checked_listen(listen, is_insecure=False, has_tls=has_tls, has_tokens=has_tokens)
    return str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_loopback_needs_neither_tls_nor_tokens(host: str) -> None:
    assert checked_listen(f"{host}:0", is_insecure=False, has_tls=False, has_tokens=False) == f"{host}:0"


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "lab.example", "127.evil.example", "10.0.0.7"])
def test_beyond_loopback_both_are_needed_and_the_missing_one_is_named(host: str) -> None:
    assert "without --tls-cert with --tls-key and --token-file" in refused(f"{host}:1", has_tls=False, has_tokens=False)
    assert "without --token-file:" in refused(f"{host}:1", has_tls=True, has_tokens=False)
    assert "without --tls-cert with --tls-key:" in refused(f"{host}:1", has_tls=False, has_tokens=True)
    assert checked_listen(f"{host}:1", is_insecure=False, has_tls=True, has_tokens=True) == f"{host}:1"
    assert checked_listen(f"{host}:1", is_insecure=True, has_tls=False, has_tokens=False) == f"{host}:1"


def test_half_of_tls_is_refused_with_the_other_half_named() -> None:
    assert checked_tls(None, None, None) is None
    for files, missing in (((Path("c"), None, None), "--tls-key"), ((None, Path("k"), Path("a")), "--tls-cert")):
        with pytest.raises(ConfigError, match=f"TLS needs {missing} too"):
            checked_tls(*files)


def test_key_of_another_certificate_is_named_at_start(tmp_path: Path) -> None:
    one, other = (trustme.CA().issue_cert("127.0.0.1") for _ in range(2))
    files = TlsFiles(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    one.cert_chain_pems[0].write_to_path(files.certificate)
    other.private_key_pem.write_to_path(files.key)
    with pytest.raises(ConfigError, match="are no certificate with its key"):
        server_credentials(files)
    files.key.unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*key.pem"):
        server_credentials(files)


def test_tokens_are_kept_as_digests_alone() -> None:
    holders = parse_tokens(f"ci client {TOKEN}  # CI\n\n# nobody\nlab agent,client {TOKEN}2")
    assert TOKEN not in repr(holders)
    assert [(one.name, sorted(one.roles)) for one in holders.values()] == [
        ("ci", [Role.CLIENT]),
        ("lab", [Role.AGENT, Role.CLIENT]),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"ci {TOKEN}", "line 1 is not NAME ROLES TOKEN"),
        (f"\nci king {TOKEN}", "line 2: role 'king' is unknown; use client or agent"),
        ("ci client short", "line 1: the token has less than 16 characters"),
        (f"a client {TOKEN}\nb client {TOKEN}", "line 2: the token is that of a"),
        ("# only words", "it holds no token"),
        (f"ci client {TOKEN}\u00fc", "line 1: the token holds characters that no call can carry"),
    ],
)
def test_wrong_line_is_named_and_never_shown(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_tokens(text)
    assert TOKEN not in str(caught.value)


def test_missing_token_file_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        TokenFile(tmp_path / "none")


def test_file_that_stays_away_is_told_once_and_not_at_every_call(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"ci client {TOKEN}")
    tokens = TokenFile(file)
    file.rename(tmp_path / "away")
    with capture_logs() as told:
        for _ in range(3):
            assert tokens.holder_of(TOKEN) is not None
    assert [entry["event"] for entry in told] == ["tokens_not_read"]


def test_shares_of_organisations_are_numbers_by_name_and_the_last_counts() -> None:
    assert parsed_shares("--quota", ["acme=4", "a=b=2", "acme=5"], 10) == {"acme": 5, "a=b": 2}


@pytest.mark.parametrize(
    "text", ["acme", "=4", "acme=", "acme=0", "acme=-1", "acme=11", "acme=4.5", "acme=9999999999999"]
)
def test_share_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="is not ORG=NUMBER") as refusal:
        parsed_shares("--quota", [text], 10)
    assert "--quota acme=4" in refusal.value.hint
