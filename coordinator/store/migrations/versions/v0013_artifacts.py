"""Records what attempts leave behind.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "artifacts",
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_artifacts_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attempt", "name", name=op.f("pk_artifacts")),
    )
    op.create_index(op.f("ix_artifacts_job_attempt_number_name"), "artifacts", ["job", "attempt_number", "name"])
    op.create_index(op.f("ix_artifacts_digest"), "artifacts", ["digest"])
