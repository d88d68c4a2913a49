"""Keeps the failures of tests that a later attempt ran again.

Revision ID: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "earlier_failures",
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("begin_us", sa.BigInteger()),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_earlier_failures_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "id", "attempt_number", name=op.f("pk_earlier_failures")),
    )
