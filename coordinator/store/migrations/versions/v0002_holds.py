"""Lets operators hold devices and drain agents.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("devices", sa.Column("hold", sa.Text(), nullable=True))
    op.add_column("devices", sa.Column("hold_reason", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("agents", sa.Column("is_draining", sa.Boolean(), nullable=False, server_default=sa.false()))
