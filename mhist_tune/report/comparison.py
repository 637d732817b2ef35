"""The document of a comparison. Its fields are the keys of the JSON that users get."""

from dataclasses import dataclass

from mhist_tune.report.document import DataDescription
from mhist_tune.report.sampling import Groups
from mhist_tune.statistics.by_votes import Mistake, VoteRate
from mhist_tune.statistics.descriptive import McNemar
from mhist_tune.statistics.summaries import MetricSummary


@dataclass(frozen=True)
class Member:
    """A study in a comparison.

    Attributes:
        n_test_openings: by the study.
        inherited_choices: on MHIST, how the study has each choice that the method report took from test results.
        auroc: over its seeds.
        by_votes: as in its report, as is `mistakes`.
    """

    study: str
    model: str
    trial: int
    opening: int
    n_seeds: int
    seeds: list[int]
    n_test_openings: int
    number_format: str | None
    inherited_choices: dict[str, str]
    auroc: MetricSummary
    by_votes: list[VoteRate]
    mistakes: list[Mistake]


@dataclass(frozen=True)
class PrimaryTest:
    """The primary test of two studies: first minus second of their seed-mean AUROC.

    Attributes:
        se: None, as all that follows from it, where too few groups hold a class.
        ci95: not adjusted, as is `p_value`.
        p_holm: the p-value adjusted for the number of pairs.
        ci_holm: the interval that excludes 0 exactly if `p_holm` is below 0.05.
        detectable: the smallest difference that the test finds with a probability of 80%.
    """

    first: str
    second: str
    difference: float
    se: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    p_holm: float | None
    ci_holm: tuple[float, float] | None
    detectable: float | None


@dataclass(frozen=True)
class SeedTest:
    """DeLong's test of one seed."""

    seed: int
    difference: float
    se: float | None
    p_value: float | None


@dataclass(frozen=True)
class DescriptiveTests:
    """The descriptive tests of two studies.

    Attributes:
        delong: of the seeds that both have.
        wilcoxon_p: over these seeds; None below six, where it cannot fall under 0.05, and where groups are known.
        mcnemar: of the seeds' mean probabilities at 0.5.
    """

    first: str
    second: str
    delong: list[SeedTest]
    wilcoxon_p: float | None
    mcnemar: McNemar


@dataclass(frozen=True)
class Comparison:
    """Two or more studies on the same test images.

    Attributes:
        n_looks: how often the test images were opened, by all studies of the storage.
        data: what is known of the data set.
        resampled_by: image or group.
        groups: of the test images; None where they are not known.
        primary: of each pair.
        descriptive: likewise.
    """

    members: list[Member]
    test_fingerprint: str
    n_looks: int
    n_images: int
    data: DataDescription
    resampled_by: str
    groups: Groups | None
    primary: list[PrimaryTest]
    descriptive: list[DescriptiveTests]
