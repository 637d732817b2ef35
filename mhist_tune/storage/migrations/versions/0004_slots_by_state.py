"""Index the slots by their state, so that a claim does not read the slots that are done."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the index."""
    op.create_index(
        "mhist_slots_by_state", "mhist_slots", ["study", "state", "stage", sa.text("priority DESC"), "slot"]
    )
