"""Remembers which lanes an agent serves.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column. Agents of earlier releases serve all lanes."""
    all_lanes = sa.text("'high,normal,low'")
    op.add_column("agents", sa.Column("lanes", sa.Text(), nullable=False, server_default=all_lanes))
