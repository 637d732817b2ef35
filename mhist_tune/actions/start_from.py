"""Chooses what a new study takes from finished ones, and records where it comes from."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mhist_tune.data import pin
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.report import inherited, transferred
from mhist_tune.report.transferred import SourceStudy, Transfer
from mhist_tune.search import transfer
from mhist_tune.storage.database import Storage
from mhist_tune.storage.predictions import image_rows
from mhist_tune.words import utc


def start_from(
    storage: Storage, names: Sequence[str], definition: StudyDefinition, data_root: Path
) -> tuple[list[dict[str, Any]], Transfer]:
    """Return the configurations that a new study takes from finished ones, and the record of their origin.

    Args:
        storage: where the studies are.
        names: of them, or `transfer.ALL`.
        definition: of the new study, without these configurations.
        data_root: the images of the new study, of which the table alone is read.

    Raises:
        StudyNotFoundError, UsageError: as `transfer.sources`; or every configuration is a start entry already.
        DataError: the table cannot be read.
    """
    found = transfer.sources(storage, names, definition)
    picks = transfer.choose(definition, found)
    test_names = pin.test_names(data_root)
    record = Transfer(
        at=utc(time.time()),
        sources=[_source(storage, source, test_names) for source in found],
        picks=picks,
    )
    return [pick.params for pick in picks], record


def _source(storage: Storage, source: transfer.Source, test_names: frozenset[str]) -> SourceStudy:
    study = source.study
    seen = {name for part in ("train", "val") for name in image_rows(storage, study, part).names}
    earlier = transferred.of_study(study)
    own = inherited.choices(study.definition, earlier.params if earlier else ())
    return SourceStudy(
        study=study.name,
        uuid=study.uuid,
        definition_sha256=study.definition.sha256,
        dataset_fingerprint=study.dataset["fingerprint"],
        test_rows_sha256=study.dataset.get("test_rows_sha256"),
        model=study.definition.fixed["model"],
        score=study.definition.score,
        n_tried=len(source.tried),
        n_confirmed=sum(one.is_confirmed for one in source.tried),
        n_outside=source.n_outside,
        inherited=sorted({*own, *(earlier.inherited if earlier else ())}),
        n_names_in_test=len(seen & test_names),
    )
