"""Lets builds say for which platform they are.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("builds", sa.Column("platform", sa.Text(), nullable=False, server_default=sa.text("''")))
