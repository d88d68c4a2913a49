"""Lets devices be forgotten that leases of the past name.

Revision ID: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the column. Earlier releases forgot no device."""
    op.add_column("devices", sa.Column("is_forgotten", sa.Boolean(), nullable=False, server_default=sa.false()))
