"""Remembers builds at accounts of clouds, and who is uploading one.

Revision ID: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the table. What earlier releases uploaded is found at the cloud itself."""
    op.create_table(
        "uploads",
        sa.Column("account", sa.Text(), primary_key=True),
        sa.Column("digest", sa.Text(), primary_key=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("begin_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
    )
