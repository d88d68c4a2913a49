"""The tables. Times are microseconds since the epoch, spans end in `_us`; maps and lists are JSON text."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()

# SQLite keeps any integer in 64 bits, and only a plain INTEGER primary key is its row id.
Id = BigInteger().with_variant(Integer(), "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("next_job", BigInteger, nullable=False),
    Column("next_attempt", BigInteger, nullable=False),
    Column("next_lease", BigInteger, nullable=False),
    Column("next_sequence", BigInteger, nullable=False),
    Column("installs_avoided", BigInteger, nullable=False),
    Column("saved_us", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("app_version_id", Text, nullable=False),
    Column("test", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("target", String(16), nullable=False),
    Column("selector", Text, nullable=False),
    Column("env", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("timeout_us", BigInteger, nullable=False),
    Column("run", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("start_us", BigInteger),
    Column("end_us", BigInteger),
    Column("attempt", BigInteger),
    Column("attempt_count", Integer, nullable=False),
    Column("device", Text),
    Column("agent", Text),
    Column("failure", Text),
    Column("flaky", Boolean, nullable=False),
    Column("is_cancel_requested", Boolean, nullable=False),
    Column("retries_used", Integer, nullable=False),
    Column("lab_failures", Integer, nullable=False),
    Column("avoid", Text, nullable=False),
    Column("preemptions", Integer, nullable=False),
    Column("retry_of", BigInteger),
    Index("jobs_by_state", "state", "id"),
    Index("jobs_by_app", "org_id", "app_version_id", "id"),
    Index("jobs_by_run", "run", "id"),
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "name"),
    Index("job_labels_by_value", "name", "value", "job_id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("lease_id", BigInteger, nullable=False),
    Column("device", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("assign_us", BigInteger, nullable=False),
    Column("start_us", BigInteger),
    Column("end_us", BigInteger),
    Column("outcome", String(16)),
    Column("failure", Text),
    Column("build_digest", String(64), nullable=False),
    Column("log_size", BigInteger, nullable=False),
    Column("log_sha256", String(64), nullable=False),
    Index("attempts_by_job", "job_id", "number"),
    Index("attempts_by_outcome", "outcome"),
)

tests = Table(
    "tests",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("test_id", String(128), nullable=False),
    Column("attempt_number", Integer, nullable=False),
    Column("title", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "test_id"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("fence_number", BigInteger, nullable=False),
    Column("device", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("app_version_id", Text, nullable=False),
    Column("target", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("grant_us", BigInteger, nullable=False),
    Column("end_us", BigInteger),
    Column("attempts", Text, nullable=False),
    Column("revoked", Text, nullable=False),
    Column("tally", Text, nullable=False),
    Index("leases_by_state", "state"),
    Index("leases_by_device", "device", "id"),
)

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("facts", Text, nullable=False),
    Column("fence_number", BigInteger, nullable=False),
    Column("lease", BigInteger),
    Column("app", Text),
    Column("app_digest", String(64), nullable=False),
    Column("busy_us", BigInteger, nullable=False),
    Column("free_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("connect_us", BigInteger, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("org_id", Text, nullable=False),
    Column("app_version_id", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("install_us", BigInteger, nullable=False),
    Column("installs", BigInteger, nullable=False),
    Column("mean_install_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("org_id", "app_version_id"),
)

requests = Table(
    "requests",
    metadata,
    Column("org_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("payload_sha256", String(64), nullable=False),
    Column("jobs", Text, nullable=False),
    PrimaryKeyConstraint("org_id", "key"),
)
