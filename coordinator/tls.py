"""TLS of both ports: certificates that are read again when their files change, so a renewal needs no restart."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from coordinator.config import ConfigError, TlsFiles
from qgjob.certificates import CertificateFault, check_authority, check_pair


@dataclass(frozen=True, slots=True)
class _Pems:
    certificate: bytes
    key: bytes
    ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], root_certificates=self.ca)


class _Certificates:
    """The PEM files, looked at again before each handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._trouble = ""
        self.pems = _checked(files)

    def renew(self) -> bool:
        """Take up what has changed and is right; return whether that was anything."""
        try:
            found = _read(self._files)
            if found == self.pems:
                return False
            self.pems = _checked(self._files)
        except (ConfigError, OSError) as error:
            self._tell(str(error))
            return False
        self._trouble = ""
        structlog.get_logger("coordinator").info("certificate_renewed", path=str(self._files.certificate))
        return True

    def _tell(self, trouble: str) -> None:
        if trouble == self._trouble:
            return  # told already: handshakes come by the thousand
        self._trouble = trouble
        structlog.get_logger("coordinator").error(
            "certificate_not_renewed", reason=trouble, story="The certificate from before goes on serving"
        )


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return the credentials of a gRPC port; with a CA, clients must show a certificate of it.

    Raises:
        ConfigError: A file is missing or wrong, or certificate and key do not belong together.
    """
    certificates = _Certificates(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None keeps what there is."""
        return certificates.pems.configuration() if certificates.renew() else None

    return grpc.dynamic_ssl_server_credentials(
        certificates.pems.configuration(),
        renewed,  # type: ignore[arg-type]  # the stubs know nothing of None
        require_client_authentication=files.ca is not None,
    )


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of an HTTP port; with a CA, clients must show a certificate of it.

    Raises:
        ConfigError: A file is missing or wrong, or certificate and key do not belong together.
    """
    certificates = _Certificates(files)
    newest = _context(files)

    def choose(connection: Any, _name: str | None, _first: ssl.SSLContext) -> None:  # noqa: ANN401 - either kind of ssl
        """Called in each handshake, whether or not it names a server."""
        nonlocal newest
        if certificates.renew():
            newest = _context(files)
        connection.context = newest

    first = _context(files)
    first.sni_callback = choose
    return first


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if files.ca is not None:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(files: TlsFiles) -> _Pems:
    return _Pems(
        certificate=files.certificate.read_bytes(),
        key=files.key.read_bytes(),
        ca=files.ca.read_bytes() if files.ca is not None else None,
    )


def _checked(files: TlsFiles) -> _Pems:
    try:
        pems = _read(files)
        check_pair(files.certificate, files.key)
        if files.ca is not None:
            check_authority(files.ca)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}", "check the --tls options") from error
    except CertificateFault as error:
        raise ConfigError(
            str(error),
            "give PEM files that are valid today: the certificate with its chain, its key without a password",
        ) from error
    return pems
