"""PEM files are judged when a program starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from qgjob.certificates import CertificateFault, check_authority, check_pair

AUTHORITY = trustme.CA()
NOW = datetime.now(UTC).replace(tzinfo=None)
DAY = timedelta(days=1)


def issued(folder: Path, begin: datetime, end: datetime) -> tuple[Path, Path]:
    pair = AUTHORITY.issue_cert("lab.example", not_before=begin, not_after=end)
    certificate, key = folder / f"{begin:%Y%m%d}.pem", folder / f"{begin:%Y%m%d}.key"
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    return certificate, key


def test_certificate_with_its_key_passes(tmp_path: Path) -> None:
    check_pair(*issued(tmp_path, NOW - DAY, NOW + DAY))


@pytest.mark.parametrize(
    ("begin", "end", "words"), [(-2 * DAY, -DAY, "has expired"), (DAY, 2 * DAY, "is not valid yet")]
)
def test_certificate_that_is_not_valid_today_is_named(
    tmp_path: Path, begin: timedelta, end: timedelta, words: str
) -> None:
    certificate, key = issued(tmp_path, NOW + begin, NOW + end)
    with pytest.raises(CertificateFault, match=f"^the certificate {certificate} {words}$"):
        check_pair(certificate, key)


def test_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    certificate, _ = issued(tmp_path, NOW - DAY, NOW + DAY)
    _, other = issued(tmp_path, NOW - 2 * DAY, NOW + DAY)
    with pytest.raises(CertificateFault, match="are no certificate with its key: KEY_VALUES_MISMATCH"):
        check_pair(certificate, other)


def test_file_without_certificates_is_no_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing here")
    with pytest.raises(CertificateFault, match=r"ca\.pem holds no certificates"):
        check_authority(tmp_path / "ca.pem")


def test_authority_passes(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    check_authority(tmp_path / "ca.pem")
