"""Keeps which builds devices refused, and where tests failed: the evidence that blame is laid by.

Revision ID: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "trials",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("app_version_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("refused_by", sa.Text(), nullable=False),
        sa.Column("is_taken", sa.Boolean(), nullable=False),
        sa.Column("note_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "app_version_id", "digest", name=op.f("pk_trials")),
    )
    op.create_table(
        "crossings",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("places", sa.Text(), nullable=False),
        sa.Column("note_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_crossings")),
    )
