"""Keeps the secrets of jobs apart from the rest of their environment.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("secrets", sa.Text(), nullable=False, server_default=sa.text("'{}'")))
