"""Keeps the addresses of artifacts that are links.

Revision ID: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the column. Earlier releases knew of no links."""
    op.add_column("artifacts", sa.Column("url", sa.Text(), nullable=False, server_default=sa.text("''")))
