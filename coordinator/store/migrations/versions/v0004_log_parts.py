"""Fences logs: says of which parts each consists, and how it ended.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and name the one file that each log has been until now."""
    op.create_table(
        "log_parts",
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("attempt", "epoch", "start", name=op.f("pk_log_parts")),
    )
    op.create_table(
        "log_ends",
        sa.Column("attempt", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("attempt", name=op.f("pk_log_ends")),
    )
    op.execute("INSERT INTO log_parts (attempt, epoch, start) SELECT id, 0, 0 FROM attempts WHERE start_us IS NOT NULL")
