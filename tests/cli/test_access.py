"""What is shown to a coordinator, and what is kept back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from qgjob.access import Access, is_loopback
from qgjob.channel import open_channel
from qgjob.config import Setting, access_of
from qgjob.errors import UsageError

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_host_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.evil.example", "localhost.evil.example", "10.0.0.1", "lab", ""])
def test_name_that_only_looks_like_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_token_never_leaves_this_host_in_the_clear_unasked() -> None:
    with pytest.raises(UsageError, match=r"the token would go to lab\.example in the clear"):
        open_channel("lab.example:50051", Access(token=TOKEN))
    Access(token=TOKEN, is_insecure=True).check("lab.example")
    Access(token=TOKEN, tls_ca="system").check("lab.example")
    Access(token=TOKEN).check("127.0.0.1")
    Access().check("lab.example")


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access(tls_ca="ca", tls_cert="cert"), "--tls-key is missing"),
        (Access(tls_ca="ca", tls_key="key"), "--tls-cert is missing"),
        (Access(tls_cert="cert", tls_key="key"), "--tls-ca is missing"),
        (Access(token=TOKEN, token_file="file"), "a token and a token file are given"),
    ],
)
def test_contradiction_is_named(access: Access, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        access.check("127.0.0.1")


def test_token_file_is_read_for_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    access = Access(token_file=str(file))
    assert access.metadata() == (("authorization", f"Bearer {TOKEN}"),)
    file.write_text("another")
    assert access.metadata() == (("authorization", "Bearer another"),)


def test_call_without_a_token_carries_none() -> None:
    assert Access().metadata() == ()


@pytest.mark.parametrize("content", [b"", b"  \n", b"two words", b"line\nline", "gr\u00fcn".encode(), b"\xff\xfe"])
def test_file_that_holds_no_token_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="holds no token"):
        Access(token_file=str(file)).metadata()


def test_nearer_setting_decides_between_a_token_and_a_token_file() -> None:
    file = Setting("from-file", "/home/me/.config/qgjob/config.toml")
    found = {"token": file, "token_file": Setting("tokens", "flag")}
    assert access_of(found) == Access(token_file="tokens")
    found = {"token": Setting(TOKEN, "QGJOB_TOKEN"), "token_file": Setting("tokens", ".qgjob.toml")}
    assert access_of(found) == Access(token=TOKEN)


@pytest.mark.parametrize(("word", "is_on"), [("true", True), ("1", True), ("no", False), ("", False)])
def test_switch_is_read_as_people_write_it(word: str, is_on: bool) -> None:
    assert access_of({"insecure": Setting(word, "QGJOB_INSECURE")}).is_insecure is is_on


def test_switch_that_is_neither_is_named() -> None:
    with pytest.raises(UsageError, match="'maybe' from QGJOB_INSECURE is neither true nor false"):
        access_of({"insecure": Setting("maybe", "QGJOB_INSECURE")})


@pytest.mark.parametrize("token", ["gr\u00fcn", "two words", "a\x00b", " \n"])
def test_token_that_no_call_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError, match=r"^what is given as token holds no token$"):
        Access(token=token).metadata()


def test_file_without_certificates_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing here")
    with pytest.raises(UsageError, match=r"ca\.pem holds no certificates"):
        open_channel("lab.example:50051", Access(tls_ca=str(tmp_path / "ca.pem")))


def test_own_key_of_another_certificate_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    ca, certificate, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    with pytest.raises(UsageError, match="are no certificate with its key"):
        open_channel("lab.example:50051", Access(tls_ca=ca, tls_cert=certificate, tls_key=key))
