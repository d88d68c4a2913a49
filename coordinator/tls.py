"""TLS of the gRPC port: certificates that are read again when their files change, so a renewal needs no restart."""

from __future__ import annotations

from dataclasses import dataclass

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


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return the credentials of a port; with a CA, clients must show a certificate of it.

    Raises:
        ConfigError: A file is missing or wrong, or certificate and key do not belong together.
    """
    known = _checked(files)
    trouble = ""

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None keeps what there is."""
        nonlocal known, trouble
        try:
            found = _read(files)
            if found == known:
                return None
            known = _checked(files)
        except (ConfigError, OSError) as error:
            if str(error) == trouble:
                return None  # told already: handshakes come by the thousand
            trouble = str(error)
            structlog.get_logger("coordinator").error(
                "certificate_not_renewed", reason=str(error), story="The certificate from before goes on serving"
            )
            return None
        trouble = ""
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
