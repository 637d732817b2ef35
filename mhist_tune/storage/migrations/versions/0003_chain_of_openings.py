"""Keep openings of the test partition beyond their study, and chain their hashes.

An old opening gets the name and the definition of its study, and the hash of the test rows if predictions of them are
stored. Then it gets its entries in the chain, in the order of the openings. The chain of old openings proves that they
were not changed after this upgrade; it proves nothing about the time before.
"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Connection

revision = "0003"
down_revision = "0002"

_OLD = ("id", "study", "opened_at", "by", "code_version", "reason", "payload", "fingerprint")
_NEW = ("study_name", "definition_sha256", "comparison", "test_rows", "failed")
_openings = sa.table("mhist_openings", *(sa.column(name) for name in (*_OLD, *_NEW)))
_studies = sa.table("mhist_studies", *(sa.column(name) for name in ("uuid", "name", "sha256")))
_image_sets = sa.table("mhist_image_sets", *(sa.column(name) for name in ("study", "image_set", "rows")))
_chain = sa.table(
    "mhist_opening_chain", *(sa.column(name) for name in ("opening", "kind", "content", "previous", "hash"))
)


def upgrade() -> None:
    """Add the columns and the chain, and fill both from the rows."""
    for column in (
        sa.Column("study_name", sa.String(255)),
        sa.Column("definition_sha256", sa.String(64)),
        sa.Column("comparison", sa.String(255)),
        sa.Column("test_rows", sa.String(64)),
        sa.Column("failed", sa.Text),
    ):
        op.add_column("mhist_openings", column)
    op.create_table(
        "mhist_opening_chain",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("opening", sa.Integer, nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    connection = op.get_bind()
    previous = "0" * 64
    for row in connection.execute(sa.select(_openings).order_by(_openings.c.id)).mappings().all():
        known = _known(connection, row["study"])
        connection.execute(sa.update(_openings).where(_openings.c.id == row["id"]).values(known))
        opened = {name: row[name] for name in _OLD if name not in ("id", "fingerprint")}
        opened |= {**known, "comparison": None, "payload": json.loads(row["payload"])}
        for kind, content in (("opened", opened), ("read", {"fingerprint": row["fingerprint"]})):
            text = json.dumps({"kind": kind, "opening": row["id"], **content}, sort_keys=True)
            digest = hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
            entry = {"opening": row["id"], "kind": kind, "content": text, "previous": previous, "hash": digest}
            connection.execute(sa.insert(_chain).values(entry))
            previous = digest


def _known(connection: Connection, study: str) -> dict[str, Any]:
    """Return what the other tables hold about the study of an opening, by the column of the opening."""
    named = connection.execute(sa.select(_studies.c.name, _studies.c.sha256).where(_studies.c.uuid == study)).first()
    is_test = sa.and_(_image_sets.c.study == study, _image_sets.c.image_set == "test")
    rows = connection.execute(sa.select(_image_sets.c.rows).where(is_test)).scalar()
    digest = None if rows is None else hashlib.sha256(json.dumps(json.loads(rows)).encode()).hexdigest()
    return {
        "study_name": named.name if named else None,
        "definition_sha256": named.sha256 if named else None,
        "test_rows": digest,
    }
