"""What a client or an agent shows to a coordinator, and how it knows that it is the right one: TLS and a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgjob.errors import UsageError

if TYPE_CHECKING:
    import grpc

SYSTEM_CA = "system"
"""In the place of a CA file: the authorities that everybody trusts."""
MAX_TOKEN_BYTES = 4_096
RELEASE_KEY = "qgjob-version"
"""Under which a client's calls carry its release."""

Metadata = tuple[tuple[str, str], ...]


def is_loopback(host: str) -> bool:
    """Whether a host, without brackets, is this very one. Of names only localhost: others may lead anywhere."""
    from ipaddress import ip_address

    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """TLS files, and a token or the file that holds one."""

    tls_ca: str = ""
    """PEM file of the authority that signed the coordinator's certificate, or "system"; empty for no TLS."""
    tls_cert: str = ""
    """Our own certificate, where the coordinator asks for one."""
    tls_key: str = ""
    token: str = ""
    token_file: str = ""
    is_insecure: bool = False
    """Whether the token may leave this host in the clear."""

    def check(self, host: str) -> None:
        """Check that this can be used with a host.

        Raises:
            UsageError: Options are missing or contradict each other, or the token would leave in the clear.
        """
        if self.token and self.token_file:
            raise UsageError("a token and a token file are given", hint="leave one of them out")
        if bool(self.tls_cert) != bool(self.tls_key):
            missing = "--tls-key" if self.tls_cert else "--tls-cert"
            raise UsageError(f"{missing} is missing", hint="a certificate of one's own needs its key")
        if self.tls_cert and not self.tls_ca:
            raise UsageError("--tls-ca is missing", hint=f"give the coordinator's CA, or {SYSTEM_CA!r}")
        if self.has_token and not self.tls_ca and not is_loopback(host) and not self.is_insecure:
            raise UsageError(
                f"the token would go to {host} in the clear",
                hint="add --tls-ca, or --insecure on a network that you trust",
            )

    @property
    def has_token(self) -> bool:
        """Whether calls carry a token."""
        return bool(self.token or self.token_file)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of a channel, None for one in the clear.

        Raises:
            UsageError: A file cannot be read, or is not what it should be.
        """
        import grpc

        if not self.tls_ca:
            return None
        authority = None if self.tls_ca == SYSTEM_CA else _read("--tls-ca", self.tls_ca)
        key = _read("--tls-key", self.tls_key) if self.tls_key else None
        certificate = _read("--tls-cert", self.tls_cert) if self.tls_cert else None
        self._check_files()
        return grpc.ssl_channel_credentials(authority, private_key=key, certificate_chain=certificate)

    def _check_files(self) -> None:
        from qgjob.certificates import CertificateFault, check_authority, check_pair

        try:
            if self.tls_ca != SYSTEM_CA:
                check_authority(Path(self.tls_ca))
            if self.tls_cert:
                check_pair(Path(self.tls_cert), Path(self.tls_key))
        except (CertificateFault, OSError) as error:
            raise UsageError(str(error), hint="check --tls-ca, --tls-cert and --tls-key") from error

    def metadata(self) -> Metadata:
        """Return the token as each call carries it. A file is read for each, so that a new token needs no restart.

        Raises:
            UsageError: The file cannot be read, or there is no token in it.
        """
        if not self.has_token:
            return ()
        if self.token:
            token = _checked_token(self.token, "what is given as token", "check QGJOB_TOKEN, or `token` in your files")
        else:
            content = _read("--token-file", self.token_file)[:MAX_TOKEN_BYTES].decode(errors="replace")
            token = _checked_token(content, self.token_file, "the file shall hold the token alone")
        return (("authorization", f"Bearer {token}"),)


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=f"check {option}") from error


def _checked_token(text: str, source: str, hint: str) -> str:
    token = text.strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise UsageError(f"{source} holds no token", hint=hint)
    return token


class MetadataChannel:
    """A channel, sync or of asyncio, whose calls carry metadata. No interceptor: those cost long streams dearly."""

    def __init__(self, channel: Any, metadata: Callable[[], Metadata]) -> None:  # noqa: ANN401 - either kind of channel
        """Wrap a channel; `metadata` is asked at each call."""
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the channel has
        return getattr(self._channel, name)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:  # noqa: ANN401
        """Make a call of this kind; so do the next three."""
        return self._carrying(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:  # noqa: ANN401, D102
        return self._carrying(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:  # noqa: ANN401, D102
        return self._carrying(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:  # noqa: ANN401, D102
        return self._carrying(self._channel.stream_stream(*args, **kwargs))

    def _carrying(self, call: Any) -> _Carrying:  # noqa: ANN401 - any of grpc's callables
        return _Carrying(call, self._metadata)


class _Carrying:
    """A method of a channel whose calls carry metadata."""

    def __init__(self, call: Any, metadata: Callable[[], Metadata]) -> None:  # noqa: ANN401
        self._call = call
        self._metadata = metadata

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return self._call(*args, metadata=self._metadata(), **kwargs)

    def with_call(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Make a call of one message, and return what else came with the answer too."""
        return self._call.with_call(*args, metadata=self._metadata(), **kwargs)
