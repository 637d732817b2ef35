"""The document of a report. Its fields are the keys of the JSON that users get."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mhist_tune.definition.scores import At, Score
from mhist_tune.report.about import About
from mhist_tune.report.confirmation import Confirmed
from mhist_tune.report.cost import StudyCost
from mhist_tune.report.gain import Gain
from mhist_tune.report.more_trials import MoreTrials
from mhist_tune.report.one_model import OneModel
from mhist_tune.report.operating import Operating
from mhist_tune.report.provenance import Provenance
from mhist_tune.report.references import Reference
from mhist_tune.report.repetitions import Repetitions
from mhist_tune.report.sampling import Sampling
from mhist_tune.report.threshold import FixedThreshold
from mhist_tune.report.transferred import Transfer
from mhist_tune.search.audit import Audit
from mhist_tune.search.trials import Importance
from mhist_tune.statistics.by_votes import Mistake, VoteRate
from mhist_tune.statistics.calibration_on_test import CalibrationOnTest
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.statistics.vote_ceiling import Ceiling

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class ReportedTrial:
    """The trial that was retrained."""

    number: int
    params: dict[str, Any]
    best_epoch: int | None
    stopped_epoch: int | None
    configured_epochs: int


@dataclass(frozen=True)
class SearchedTrial:
    """One trial of the search.

    Attributes:
        value: its objective, of the study's score; None where none was measured.
        decision: the pruner's last one on it.
    """

    number: int
    state: str
    value: float | None
    decision: dict[str, Any] | None


@dataclass(frozen=True)
class Search:
    """What the search found.

    Attributes:
        n_trials: by state.
        n_trivial: number of trials whose model calls all validation images one class.
        history: every trial that recorded an epoch, by number.
        audit: of the pruner.
        edges: an alarm for each value at the end of its range.
        more_trials: what more trials are expected to bring; None for a table.
        repetitions: of the whole search; None if there is none.
    """

    n_trials: dict[str, int]
    n_trivial: int
    history: list[SearchedTrial]
    importance: Importance
    audit: Audit
    edges: list[str]
    more_trials: MoreTrials | None
    repetitions: Repetitions | None


@dataclass(frozen=True)
class Cost:
    """What trainings took.

    Attributes:
        images_per_s: while training; None where nothing was timed.
        peak_memory_bytes: the highest; None on a device that measures none.
    """

    images_per_s: float | None
    n_epochs: int
    elapsed_s: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Opening:
    """An opening of the test partition.

    Attributes:
        reason: as given by the person who opened it.
        trial: the retrained trial; None if the opening describes rows of a table.
        default: the trial of the study's default, retrained beside it.
        descriptive: the trials of a table whose early-stopped models the opening was for.
        test_fingerprint: of the test images; empty until all of them were read.
        study: the name of the study; None for one that an older version deleted.
        failed: why it failed before any prediction; None if it did not.
        hash: of its entry in the chain of openings.
    """

    id: int
    opened_at: str
    by: str
    code_version: str
    reason: str | None
    trial: int | None
    default: int | None
    descriptive: list[int]
    seeds: list[int]
    test_fingerprint: str
    study: str | None
    study_uuid: str
    definition_sha256: str | None
    failed: str | None
    hash: str | None


@dataclass(frozen=True)
class DataDescription:
    """What is said of the data set: by its user in `dataset.toml`, or by us of MHIST. None where nothing is known.

    Attributes:
        votes: real or simulated.
        n_groups_on_both_sides: patients or slides with train and test images; None where none are known.
    """

    description: str | None
    source: str | None
    votes: str | None
    n_annotators: int | None
    n_groups_on_both_sides: int | None

    @property
    def annotator(self) -> str:
        """The word for one of those who voted."""
        return {"real": "pathologist", "simulated": "simulated annotator"}.get(self.votes or "", "annotator")


@dataclass(frozen=True)
class Report:
    """The report of a study: the newest opening of the test partition that has a finished seed.

    Attributes:
        score: the validation metric that the study searched by, and `at` the epoch that it was taken from.
        weight_files: SHA-256 by name.
        dataset_fingerprint: of the train partition; each opening has that of the test partition.
        stop_epoch: of the retraining.
        opening: its id in `test_openings`.
        complete: whether every seed of it has predictions.
        n_seeds: that are reported.
        n_images: of the test partition, as is `share_ssa`.
        is_mhist: whether the test images are MHIST's, so that published results are comparable.
        inherited_choices: on MHIST, how the study has each choice that the method report took from test results.
        transfer: the configurations that were taken from other studies; None if none were.
        data: what is known of the data set.
        about: what the author says of study and data.
        number_format: that the models were trained in; None if it is not recorded.
        resampled_by: image or group.
        sampling: groups, and how the intervals depend on images that are alike.
        metrics: at 0.5, by name.
        confirm: None where nothing is confirmed.
        calibration: of the raw probabilities on the test images; None where these are of one class.
        held_out: None without held-out predictions; `gain` where the opening names no default.
        operating: None where the test images are of one class, `one_model` for a single seed, and `ceiling` where the
            votes show no disagreement.
        mistakes: the most confident one first.
        cost: of the whole study.
        provenance: of data and code.
        epochs_at_most: of search and confirmation, were all trials complete and all finalists trained on all folds.
        settings: what every training of the study shares, as `probe.measure` returned it.
        test_openings: every one of the study.
        other_openings: those of the same test images by other studies of the storage, deleted ones too.
        extended_after_opening: trials that were added to the search, or trained, after the first opening.
        versions: of the machine that makes the report.
        predictions: the path of the CSV, once it is written.
        result: in one sentence.
        caveats: the sentences without which the numbers would be misread.
        methods: a paragraph for a paper.
    """

    study: str
    model: str
    score: Score
    at: At
    definition_sha256: str
    weight_files: dict[str, str]
    dataset_fingerprint: str
    trial: ReportedTrial
    stop_epoch: int
    opening: int
    complete: bool
    n_seeds: int
    n_seeds_planned: int
    seeds: list[int]
    n_train: int
    n_val: int
    n_images: int
    share_ssa: float
    is_mhist: bool
    inherited_choices: dict[str, str]
    transfer: Transfer | None
    data: DataDescription
    about: About
    number_format: str | None
    resampled_by: str
    sampling: Sampling
    metrics: dict[str, MetricSummary]
    confirm: Confirmed | None
    calibration: CalibrationOnTest | None
    held_out: FixedThreshold | None
    gain: Gain | None
    operating: Operating | None
    one_model: OneModel | None
    ceiling: Ceiling | None
    by_votes: list[VoteRate]
    mistakes: list[Mistake]
    references: list[Reference]
    search: Search
    search_cost: Cost
    confirm_cost: Cost
    epochs_at_most: int
    settings: dict[str, Any] | None
    training_speed: Cost
    cost: StudyCost
    provenance: Provenance
    test_openings: list[Opening]
    other_openings: list[Opening]
    extended_after_opening: int
    versions: dict[str, str]
    commands: list[str]
    predictions: str | None = None
    result: str = ""
    caveats: list[str] = field(default_factory=list)
    methods: str = ""

    @property
    def all_openings(self) -> list[Opening]:
        """The openings of the test images by all studies, in their order."""
        return sorted([*self.test_openings, *self.other_openings], key=lambda opening: opening.id)

    @property
    def looks(self) -> list[Opening]:
        """The openings that have not failed before any prediction, in their order."""
        return [opening for opening in self.all_openings if opening.failed is None]

    @property
    def look(self) -> int:
        """Which look at the test images the report is of; 1 for the first one."""
        return sum(opening.id <= self.opening for opening in self.looks)


def to_json(document: "DataclassInstance") -> str:
    """Return a document as strict JSON."""
    return json.dumps(asdict(document), indent=2, allow_nan=False)
