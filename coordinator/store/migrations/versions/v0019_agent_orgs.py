"""Remembers which organisations an agent serves.

Revision ID: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the column. Agents of earlier releases serve all of them."""
    op.add_column("agents", sa.Column("orgs", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
