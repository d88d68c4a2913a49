"""How links are made, and how soon one is known to be dead that stays open and carries nothing: the same everywhere."""

from __future__ import annotations

QUIET_MS = 8_000
"""After so long without a byte from the other side, it is asked for a sign of life."""
ANSWER_MS = 8_000
"""A link without an answer for so long is given up: 16 s after the last byte at the latest, of the 20 s that are
promised. Sent bytes that nobody confirms end it as soon."""
CONNECT_MS = 5_000
"""How long one try to connect may take. With gRPC's own 20 s, an agent that tries just before a partition ends comes
back when its lease is over."""

BOTH_ENDS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", QUIET_MS),
    ("grpc.keepalive_timeout_ms", ANSWER_MS),
    # Without it a stopped peer was seen after more than a minute.
    ("grpc.http2.ping_timeout_ms", ANSWER_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""gRPC options of servers and channels."""
SERVER: tuple[tuple[str, int], ...] = (
    *BOTH_ENDS,
    # Pings that come more often are taken for an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
"""gRPC options of a server."""
CHANNEL: tuple[tuple[str, int], ...] = (
    *BOTH_ENDS,
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    # With gRPC's own, unseen retries a stream that was open to a server which sleeps and then leaves can wait for ever.
    ("grpc.enable_retries", 0),
    # Who connects paces its tries itself.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
"""gRPC options of a channel."""
