"""Lets slots of a cloud say whose sessions they use.

Revision ID: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column."""
    op.add_column("devices", sa.Column("account", sa.Text(), nullable=False, server_default=sa.text("''")))
