"""What one message may hold, and which protocol this is."""

from __future__ import annotations

from typing import Final

from coordinator.core import model as m

PROTOCOL: Final = 1
"""Number of the agent protocol that this release speaks."""

MAX_JOBS_PER_CALL: Final = 10_000
MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100
MAX_NAME: Final = 128
MAX_PATH_BYTES: Final = 1_024
MAX_SELECTOR: Final = 16
MAX_STATES: Final = 64
MAX_VALUE: Final = 1_024
MAX_DEVICE_ID: Final = 256
MAX_MESSAGE_BYTES: Final = 4 * 1_024 * 1_024
MAX_LISTED_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1_024
"""What the jobs of an answer may take: labels can make a job a hundred times as large as another."""
MAX_FRAMING_BYTES: Final = 8
MAX_ANSWER_BYTES_PER_JOB: Final = 96
"""What an accepted job has in the answer besides what was sent."""

MAX_RETRIES: Final = 10
MAX_TIMEOUT_US: Final = 24 * 3600 * m.SECOND_US
MAX_DEVICES_PER_AGENT: Final = 1_000
MAX_ERROR_TEXT: Final = 16 * 1_024
MAX_TESTS: Final = 5_000
MAX_ORGS: Final = 100
"""Organisations that an agent may be kept for."""
MAX_UPLOADS: Final = 1_000
"""Claims to uploads that an agent may have: one for each of its slots."""
MAX_UPLOAD_TURN: Final = 1_000
MAX_RESULTS: Final = 10_000
"""In one Hello; agents bring the newest of theirs, far fewer."""
MAX_ECHOES: Final = 2 * MAX_DEVICES_PER_AGENT
MAX_ECHOED_ATTEMPTS: Final = 100_000
MAX_TOLD_BYTES: Final = 800
"""A gRPC status travels in HTTP/2 trailers, for which 8 KiB are allowed."""
MAX_TOLD_FIELD_BYTES: Final = 200
MAX_SPAN_US: Final = 366 * 24 * 3600 * m.SECOND_US
"""Longer spans are garbage; without a bound they would overflow the database's integers."""
