"""Keeps how devices are, what tells against them, and the canaries that bring them back.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("devices", sa.Column("vitals", sa.Text(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("devices", sa.Column("marks", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column("devices", sa.Column("relapses", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("leases", sa.Column("is_canary", sa.Boolean(), nullable=False, server_default=sa.false()))
