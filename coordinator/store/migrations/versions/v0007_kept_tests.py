"""Lets a job that made room keep the tests that were done.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("kept", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
