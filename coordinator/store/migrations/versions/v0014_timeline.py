"""Keeps when a build was put on a device for an attempt, and when each test began.

Revision ID: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the columns; of what ran before nobody knows."""
    op.add_column("leases", sa.Column("install_end_us", sa.BigInteger()))
    for name in ("install_end_us", "install_us"):
        op.add_column("attempts", sa.Column(name, sa.BigInteger()))
    op.add_column("test_results", sa.Column("begin_us", sa.BigInteger()))
