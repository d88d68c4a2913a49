"""Lets builds say for which kind of device alone they were built.

Revision ID: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column."""
    op.add_column("builds", sa.Column("device_kind", sa.Text(), nullable=False, server_default=sa.text("''")))
