"""Judges PEM files when a program starts: gRPC itself would only fail each handshake, with hardly a word."""

from __future__ import annotations

import ssl
from pathlib import Path

_FAULTS_OF_TIME = {9: "is not valid yet", 10: "has expired"}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class CertificateFault(Exception):
    """A file is not what it should be; the sentence names it and says what is wrong."""


def check_pair(certificate: Path, key: Path) -> None:
    """Check that a certificate has its key, and has not run out.

    Raises:
        CertificateFault: One of the two is wrong, or they do not belong together.
        OSError: One cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise CertificateFault(f"{certificate} and {key} are no certificate with its key: {_said(error)}") from error
    if fault := _fault_of_time(context, certificate):
        raise CertificateFault(f"the certificate {certificate} {fault}")


def check_authority(path: Path) -> None:
    """Check that a file holds certificates.

    Raises:
        CertificateFault: It holds none.
        OSError: It cannot be read.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, ValueError) as error:
        raise CertificateFault(f"{path} holds no certificates: {_said(error)}") from error


def _fault_of_time(server: ssl.SSLContext, certificate: Path) -> str | None:
    """Shake hands in memory with one that trusts this very certificate, and so judges little but its dates.

    The standard library reads no dates of a certificate by itself. One that is for clients alone is not judged.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (asking, answering, asking):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        return _FAULTS_OF_TIME.get(error.verify_code)
    except ssl.SSLError:
        return None  # whatever else there may be is for the real handshake to judge
    return None


def _no_password() -> str:
    raise ValueError("the key has a password")


def _said(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
