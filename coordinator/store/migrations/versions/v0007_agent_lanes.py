"""Remembers which lanes an agent serves.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column. Agents of earlier releases serve all lanes."""
    all_lanes = sa.text("'high,normal,low'")
    op.add_column("agents", sa.Column("lanes", sa.Text(), nullable=False, server_default=all_lanes))
