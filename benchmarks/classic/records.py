"""The tables, and the connection to them. Where they lie is in the environment."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Engine, ForeignKey, Index, func
from sqlalchemy import create_engine as connect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DATABASE = "CLASSIC_DATABASE"
BROKER = "CLASSIC_BROKER"
LOGS = "CLASSIC_LOGS"
NOTE = "NOTE_START_IN"
"""Entry of a job's env: a file in which the worker notes when it began."""


class Base(DeclarativeBase):
    """Of all records."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy reads it from the class


class Job(Base):
    """What a user asked for, and what became of it."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[str]
    app_version_id: Mapped[str]
    test: Mapped[str]
    priority: Mapped[int]
    target: Mapped[str]
    env: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default="queued")
    create_time: Mapped[datetime] = mapped_column(server_default=func.now())
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    log_size: Mapped[int] = mapped_column(default=0)
    __table_args__ = (Index(None, "state"), Index(None, "org_id"))


class Request(Base):
    """An idempotency key, and the first of the jobs that were accepted under it."""

    __tablename__ = "requests"
    org_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"))


def engine(connections: int) -> Engine:
    """Return an engine with so many connections, all of which are kept."""
    return connect(os.environ[DATABASE], pool_size=connections, max_overflow=0)
