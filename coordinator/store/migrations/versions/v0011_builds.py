"""Registers builds, and lets jobs and leases name theirs, and bundles, by digest.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns."""
    for table in ("jobs", "leases"):
        op.add_column(table, sa.Column("build_digest", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("jobs", sa.Column("bundle_digest", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("devices", sa.Column("app_is_registered", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("size", "register_us"):
        op.add_column("builds", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("builds", sa.Column("file_name", sa.Text(), nullable=False, server_default=sa.text("''")))
