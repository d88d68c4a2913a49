"""TLS of the gRPC port: certificates that are read again when their files change, so a renewal needs no restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from coordinator.config import ConfigError, TlsFiles


@dataclass(frozen=True, slots=True)
class _Pems:
    certificate: bytes
    key: bytes
    ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], root_certificates=self.ca)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return the credentials of a port; with a CA, clients must show a certificate of it.

    Raises:
        ConfigError: A file is missing or wrong, or certificate and key do not belong together.
    """
    known = _checked(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None keeps what there is."""
        nonlocal known
        try:
            found = _read(files)
            if found == known:
                return None
            known = _checked(files)
        except (ConfigError, OSError) as error:
            structlog.get_logger("coordinator").error(
                "certificate_not_renewed", reason=str(error), story="The certificate from before goes on serving"
            )
            return None
        structlog.get_logger("coordinator").info("certificate_renewed", path=str(files.certificate))
        return known.configuration()

    return grpc.dynamic_ssl_server_credentials(
        known.configuration(),
        renewed,  # type: ignore[arg-type]  # the stubs know nothing of None
        require_client_authentication=files.ca is not None,
    )


def _read(files: TlsFiles) -> _Pems:
    return _Pems(
        certificate=files.certificate.read_bytes(),
        key=files.key.read_bytes(),
        ca=files.ca.read_bytes() if files.ca is not None else None,
    )


def _checked(files: TlsFiles) -> _Pems:
    """Let OpenSSL judge the files: gRPC itself would only fail each handshake, with hardly a word."""
    try:
        pems = _read(files)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}", "check the --tls options") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{files.certificate} and {files.key} are no certificate with its key: {_said(error)}",
            "give PEM files: the certificate with its chain, and its key without a password",
        ) from error
    if files.ca is not None:
        _check_ca(context, files.ca)
    return pems


def _check_ca(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{path} holds no certificates: {_said(error)}", "give a PEM file with --tls-ca") from error


def _no_password() -> str:
    raise ValueError("the key has a password")


def _said(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
