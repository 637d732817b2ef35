"""Published test results on MHIST's 977 test images, 360 of them SSA, to compare a study with.

The method report is the hand-made tuning that this package automates. Its ResNet rows are single runs whose
hyperparameters were chosen on the test partition. Its other rows take augmentation, exclusion and over-sampling from
there. Its AUROC is the area under the curve of probabilities. The paper
(Wei et al., 2021, Table 3) averages the five highest test AUROCs among the epochs of each run, which selects on test.
"""

from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class Reference:
    """One published result; a number is None where it was not given, a deviation also where there was one run."""

    source: str
    model: str
    _: KW_ONLY
    n_seeds: int = 1
    auroc: float
    auroc_std: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    remark: str = ""


_ON_TEST = "hyperparameters chosen on test"
_INHERITED = "augmentation, exclusion and over-sampling chosen on test"
_FIVE_HIGHEST = "five highest test AUROCs of each run"

REFERENCES = (
    Reference(
        "method report",
        "ViT-B/16, ImageNet weights",
        auroc=0.9485,
        n_seeds=10,
        auroc_std=0.0041,
        f1=0.835,
        accuracy=0.882,
        remark=_INHERITED,
    ),
    Reference("method report", "ResNet-18, ImageNet weights", auroc=0.942, f1=0.843, accuracy=0.886, remark=_ON_TEST),
    Reference("method report", "ResNet-18, random weights", auroc=0.916, f1=0.779, accuracy=0.840, remark=_ON_TEST),
    Reference("method report", "FCNN, random weights", auroc=0.743, f1=0.609, accuracy=0.726, remark=_INHERITED),
    Reference(
        "method report", "ResNet-18 and ViT-B/16, ensemble", auroc=0.931, f1=0.829, accuracy=0.881, remark=_ON_TEST
    ),
    Reference(
        "MHIST paper", "ResNet-18, ImageNet weights", auroc=0.927, n_seeds=10, auroc_std=0.004, remark=_FIVE_HIGHEST
    ),
    Reference(
        "MHIST paper", "ResNet-18, random weights", auroc=0.845, n_seeds=10, auroc_std=0.011, remark=_FIVE_HIGHEST
    ),
)
