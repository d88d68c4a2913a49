"""Lets jobs that asked for any device spill over to slots of a cloud.

Revision ID: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("can_spill", sa.Boolean(), nullable=False, server_default=sa.false()))
