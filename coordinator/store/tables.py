"""The tables, one for each kind of record. Changing one takes a migration; a test compares the two.

Times and spans are integers of microseconds. Mappings and lists of a record that no query looks into are JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _key() -> TypeEngine[int]:
    """Return the type of a 64-bit key; SQLite keeps a table in the order of its key only if that is an INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")


meta = Table(
    "meta",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("cluster_id", Text, nullable=False),
    Column("storage_id", Text, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

counters = Table(
    "counters",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("next_job", BigInteger, nullable=False),
    Column("next_attempt", BigInteger, nullable=False),
    Column("next_lease", BigInteger, nullable=False),
    Column("next_sequence", BigInteger, nullable=False),
    Column("installs_avoided", BigInteger, nullable=False),
    Column("saved_us", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

# Not in `counters`, which every commit locks: a renewal must not wait for one.
leadership = Table(
    "leadership",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("ttl_us", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

# `rows.job` reads the columns in this order.
jobs = Table(
    "jobs",
    metadata,
    Column("id", _key(), primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("app_version_id", Text, nullable=False),
    Column("test", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("target", Text, nullable=False),
    Column("selector", Text, nullable=False),
    Column("env", Text, nullable=False),
    Column("secrets", Text, nullable=False, server_default=text("'{}'")),
    Column("labels", Text, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("timeout_us", BigInteger, nullable=False),
    Column("run", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("start_us", BigInteger),
    Column("end_us", BigInteger),
    Column("attempt", BigInteger),
    Column("attempt_count", Integer, nullable=False),
    Column("device", Text),
    Column("agent", Text),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("failure_blame", Text),
    Column("flaky", Boolean, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    Column("retries_used", Integer, nullable=False),
    Column("lab_failures", Integer, nullable=False),
    Column("avoid", Text, nullable=False),
    Column("preemptions", Integer, nullable=False),
    Column("kept", Text, nullable=False, server_default=text("'[]'")),
    Column("retry_of", BigInteger),
    Column("build_digest", Text, nullable=False, server_default=text("''")),
    Column("bundle_digest", Text, nullable=False, server_default=text("''")),
    Column("can_spill", Boolean, nullable=False, server_default=false()),
    # Lists are newest first, so each filter that can be narrow has an index that ends in the id.
    Index(None, "state", "id"),
    Index(None, "org_id", "id"),
    Index(None, "app_version_id", "id"),
    Index(None, "run", "id"),
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("job", BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Index(None, "job"),
    sqlite_with_rowid=False,
)

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("os_version", Text, nullable=False),
    Column("udid", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("is_usable", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("fence_number", BigInteger, nullable=False),
    Column("lease", BigInteger),
    Column("app_org_id", Text),
    Column("app_version_id", Text),
    Column("app_digest", Text, nullable=False),
    Column("busy_us", BigInteger, nullable=False),
    Column("free_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("hold", Text),
    Column("hold_reason", Text, nullable=False, server_default=text("''")),
    Column("vitals", Text, nullable=False, server_default=text("'{}'")),
    Column("account", Text, nullable=False, server_default=text("''")),
    Column("marks", Text, nullable=False, server_default=text("'[]'")),
    Column("relapses", Integer, nullable=False, server_default=text("0")),
    Column("app_is_registered", Boolean, nullable=False, server_default=false()),
    # The lab knows it no more, and leases of the past name it.
    Column("is_forgotten", Boolean, nullable=False, server_default=false()),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("connect_us", BigInteger, nullable=False),
    Column("is_draining", Boolean, nullable=False, server_default=false()),
    Column("lanes", Text, nullable=False, server_default=text("'high,normal,low'")),
    Column("orgs", Text, nullable=False, server_default=text("'[]'")),
)

leases = Table(
    "leases",
    metadata,
    Column("id", _key(), primary_key=True, autoincrement=False),
    Column("fence_epoch", BigInteger, nullable=False),
    Column("fence_number", BigInteger, nullable=False),
    Column("device", Text, ForeignKey("devices.id"), nullable=False),
    Column("agent", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("app_version_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("grant_us", BigInteger, nullable=False),
    Column("end_us", BigInteger),
    Column("attempts", Text, nullable=False),
    Column("revoked", Text, nullable=False),
    Column("started", Integer, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("other", Integer, nullable=False),
    Column("installs", Integer, nullable=False),
    Column("install_us", BigInteger, nullable=False),
    Column("is_canary", Boolean, nullable=False, server_default=false()),
    Column("build_digest", Text, nullable=False, server_default=text("''")),
    Column("install_end_us", BigInteger),
    UniqueConstraint("device", "fence_number", "fence_epoch"),
)

# Spelt out: NOT IN expands at each execution, which many rows at once cannot.
LEASE_IS_LIVE = and_(*(leases.c.state != state for state in ("released", "revoked", "expired")))
# Two live leases on one device are refused by the database itself.
Index("uq_leases_live_device", leases.c.device, unique=True, sqlite_where=LEASE_IS_LIVE, postgresql_where=LEASE_IS_LIVE)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _key(), primary_key=True, autoincrement=False),
    Column("job", BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("lease", BigInteger, ForeignKey("leases.id"), nullable=False),
    Column("device", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("assign_us", BigInteger, nullable=False),
    Column("start_us", BigInteger),
    Column("end_us", BigInteger),
    Column("outcome", Text),
    Column("failure_reason", Text),
    Column("failure_message", Text),
    Column("failure_blame", Text),
    Column("build_digest", Text, nullable=False),
    Column("log_size", BigInteger, nullable=False),
    Column("log_sha256", Text, nullable=False),
    Column("install_end_us", BigInteger),
    Column("install_us", BigInteger),
    UniqueConstraint("job", "number"),
    Index(None, "lease"),
)

ATTEMPT_IS_OPEN = attempts.c.outcome.is_(None)
Index("ix_attempts_open", attempts.c.id, sqlite_where=ATTEMPT_IS_OPEN, postgresql_where=ATTEMPT_IS_OPEN)

test_results = Table(
    "test_results",
    metadata,
    # Rises, so that a job's tests are read in the order in which they were first reported.
    Column("serial", _key(), primary_key=True, autoincrement=True),
    Column("job", BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("id", Text, nullable=False),
    Column("attempt_number", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("begin_us", BigInteger),
    UniqueConstraint("job", "id"),
)

# What of test_results was failed when a later attempt replaced it.
earlier_failures = Table(
    "earlier_failures",
    metadata,
    Column("job", BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("id", Text, primary_key=True),
    Column("attempt_number", Integer, primary_key=True, autoincrement=False),
    Column("title", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("begin_us", BigInteger),
)

builds = Table(
    "builds",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("app_version_id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("install_us", BigInteger, nullable=False),
    Column("installs", BigInteger, nullable=False),
    Column("mean_install_us", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False, server_default=text("0")),
    Column("file_name", Text, nullable=False, server_default=text("''")),
    Column("register_us", BigInteger, nullable=False, server_default=text("0")),
    Column("platform", Text, nullable=False, server_default=text("''")),
    Column("device_kind", Text, nullable=False, server_default=text("''")),
)

# Which devices refused a build for its own reason, and whether one took it; by digest where it was registered.
trials = Table(
    "trials",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("app_version_id", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("refused_by", Text, nullable=False),
    Column("is_taken", Boolean, nullable=False),
    Column("note_us", BigInteger, nullable=False),
)

# Where tests and installs failed since they passed last; see coordinator/core/crossings.py.
crossings = Table(
    "crossings",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("places", Text, nullable=False),
    Column("note_us", BigInteger, nullable=False),
)

# Builds at accounts of clouds; without an end they are being uploaded. See coordinator/core/uploads.py.
uploads = Table(
    "uploads",
    metadata,
    Column("account", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("agent", Text, nullable=False),
    Column("begin_us", BigInteger, nullable=False),
    Column("end_us", BigInteger),
    Column("url", Text, nullable=False),
)

# How long each test took; the averages are of logarithms, see coordinator/core/durations.py.
expectations = Table(
    "expectations",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("test", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("mean", BigInteger, nullable=False),
    Column("deviation", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("payload_sha256", Text, nullable=False),
    Column("jobs", Text, nullable=False),
)

log_parts = Table(
    "log_parts",
    metadata,
    # No foreign key: the rows outlive their attempt until the bytes are gone as well.
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger),
)

log_ends = Table(
    "log_ends",
    metadata,
    Column("attempt", _key(), primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("job", BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt_number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("url", Text, nullable=False, server_default=text("''")),
    Index(None, "job", "attempt_number", "name"),
    # Whether a blob is still named.
    Index(None, "digest"),
)
