"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "mhist_schema",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_by", sa.String(64), nullable=False),
    )
    op.create_table(
        "mhist_studies",
        sa.Column("uuid", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False, unique=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "mhist_image_sets",
        sa.Column("study", sa.String(32), primary_key=True),
        sa.Column("image_set", sa.String(64), primary_key=True),
        sa.Column("n_images", sa.Integer, nullable=False),
        sa.Column("rows", sa.Text, nullable=False),
    )
    op.create_table(
        "mhist_slots",
        sa.Column("study", sa.String(32), primary_key=True),
        sa.Column("stage", sa.String(32), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("trial_id", sa.Integer),
        sa.Column("trial_number", sa.Integer),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("expires_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    op.create_table(
        "mhist_epochs",
        sa.Column("study", sa.String(32), primary_key=True),
        sa.Column("stage", sa.String(32), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("best_value", sa.Double),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
        sa.Column("recorded_at", sa.Double, nullable=False),
    )
    op.create_index("mhist_epochs_by_epoch", "mhist_epochs", ["study", "stage", "epoch", "slot", "best_value"])
    op.create_table(
        "mhist_predictions",
        sa.Column("study", sa.String(32), primary_key=True),
        sa.Column("stage", sa.String(32), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("image_set", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.Integer),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("probabilities", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "mhist_openings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("study", sa.String(32), nullable=False, index=True),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
    )
    op.create_table(
        "mhist_workers",
        sa.Column("worker", sa.String(255), primary_key=True),
        sa.Column("study", sa.String(32), index=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(32)),
        sa.Column("slot", sa.Integer),
        sa.Column("trial_number", sa.Integer),
        sa.Column("epoch", sa.Integer),
        sa.Column("images_per_s", sa.Double),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table(
        "mhist_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("study", sa.String(32), nullable=False, index=True),
        sa.Column("stage", sa.String(32)),
        sa.Column("slot", sa.Integer),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
