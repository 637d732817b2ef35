"""The columns of our tables, which are in the same database as Optuna's.

Rows belong to a study by its UUID, because names can be used again and SQLite uses ids again. Times are epoch
seconds by the database's clock. A JSON column is text, so that both databases hold the same bytes.
"""

import json
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from mhist_tune.storage.damage import explained
from mhist_tune.storage.decision import Decision
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.stages import SlotState, Stage, StudyState

SCHEMA_VERSION = 4
"""The version of the tables. A change of a table raises it by one and needs a new file in `migrations/versions`."""


class Json(TypeDecorator[Any]):
    """A JSON document as text, a table or else a list; ``None`` is NULL.

    Raises:
        ValueError: the document holds a NaN or an infinity, which JSON does not have.
    """

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text that is stored."""
        return None if value is None else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the document."""
        if value is None:
            return None
        with explained("a document"):
            document = json.loads(value)
            if not isinstance(document, self.kind):
                raise TypeError(f"it is no {self.kind.__name__}")
        return document


class HasJson(Protocol):
    """An object that is stored as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-safe record of the object."""
        ...


class Record(TypeDecorator[HasJson]):
    """An object whose class has `to_json` and `from_json`, as text; ``None`` is NULL."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[Outcome] | type[Decision]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: HasJson | None, dialect: Dialect) -> str | None:
        """Return the text that is stored. Raise ValueError if it holds a NaN or an infinity."""
        return None if value is None else json.dumps(value.to_json(), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> HasJson | None:
        """Return the object."""
        if value is None:
            return None
        with explained("an outcome" if self.kind is Outcome else "a decision"):
            return self.kind.from_json(json.loads(value))


class Name(TypeDecorator[StrEnum]):
    """A member of an enumeration as text.

    Raises:
        ValueError: the enumeration has no such member.
    """

    impl = String
    cache_ok = True

    def __init__(self, names: type[StrEnum], length: int) -> None:
        super().__init__(length)
        self.names = names

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text that is stored."""
        return None if value is None else str(self.names(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Return the member."""
        if value is None:
            return None
        with explained("a name"):
            return self.names(value)


metadata = MetaData()

schema = Table(
    "mhist_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_by", String(64), nullable=False),
)

studies = Table(
    "mhist_studies",
    metadata,
    Column("uuid", String(32), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("definition", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("dataset", Json, nullable=False),
    Column("settings", Json, nullable=False),
    Column("state", Name(StudyState, 16), nullable=False),
    Column("created_at", Double, nullable=False),
)

image_sets = Table(
    "mhist_image_sets",
    metadata,
    Column("study", String(32), primary_key=True),
    Column("image_set", String(64), primary_key=True),
    Column("n_images", Integer, nullable=False),
    Column("rows", Json(list), nullable=False),  # [[name, label, votes, group], ...] in the order of the probabilities
)

slots = Table(
    "mhist_slots",
    metadata,
    Column("study", String(32), primary_key=True),
    Column("stage", Name(Stage, 32), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("payload", Json, nullable=False),
    Column("trial_id", Integer),
    Column("trial_number", Integer),
    Column("token", Integer, nullable=False),
    Column("state", Name(SlotState, 16), nullable=False),
    Column("owner", String(255)),
    Column("expires_at", Double),
    Column("n_claims", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("outcome", Record(Outcome)),
    Column("if_not_promoted", Record(Outcome)),  # of a waiting slot: the outcome it has unless it is promoted
)
# Finds the next free slot and the leases without reading other slots. A renewal changes no column of it.
Index("mhist_slots_by_state", slots.c.study, slots.c.state, slots.c.stage, slots.c.priority.desc(), slots.c.slot)

epochs = Table(
    "mhist_epochs",
    metadata,
    Column("study", String(32), primary_key=True),
    Column("stage", Name(Stage, 32), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),
    Column("score", Double),  # of this epoch
    Column("value", Double),  # the trial's objective up to this epoch
    Column("metrics", Json, nullable=False),
    Column("decision", Record(Decision)),
    Column("recorded_at", Double, nullable=False),
    Index("mhist_epochs_by_epoch", "study", "stage", "epoch", "slot", "value"),  # all that judging a trial reads
)

predictions = Table(
    "mhist_predictions",
    metadata,
    Column("study", String(32), primary_key=True),
    Column("stage", Name(Stage, 32), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("image_set", String(64), primary_key=True),
    Column("epoch", Integer),
    Column("token", Integer, nullable=False),
    Column("probabilities", LargeBinary, nullable=False),  # float64, little endian, one for each row of the image set
)

openings = Table(
    "mhist_openings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String(32), nullable=False, index=True),
    Column("opened_at", Double, nullable=False),
    Column("by", String(255), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("reason", Text),
    Column("payload", Json, nullable=False),
    Column("fingerprint", String(64), nullable=False),  # empty until all test images were read
    Column("study_name", String(255)),
    Column("definition_sha256", String(64)),
    Column("comparison", String(255)),
    Column("test_rows", String(64)),  # the hash of the table's test rows
    Column("failed", Text),
)

opening_chain = Table(
    "mhist_opening_chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("opening", Integer, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("previous", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)

workers = Table(
    "mhist_workers",
    metadata,
    Column("worker", String(255), primary_key=True),
    Column("study", String(32), index=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(64), nullable=False),
    Column("stage", Name(Stage, 32)),
    Column("slot", Integer),
    Column("trial_number", Integer),
    Column("epoch", Integer),
    Column("images_per_s", Double),
    Column("memory_bytes", BigInteger),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("state", String(16), nullable=False),
)

events = Table(
    "mhist_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String(32), nullable=False, index=True),
    Column("stage", Name(Stage, 32)),
    Column("slot", Integer),
    Column("at", Double, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("detail", Json, nullable=False),
)

OF_A_STUDY = (image_sets, slots, epochs, predictions, workers, events)
"""Every table whose rows are deleted with their study, by their column ``study``. Openings are kept."""
