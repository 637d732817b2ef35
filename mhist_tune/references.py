"""Published test results on MHIST that a study stands beside; they hold for its 977 test images, 360 of them SSA.

The method report is the hand-made tuning that this package automates. Its ResNet rows are single runs whose
hyperparameters were chosen on the test partition; its AUROC is the area under the curve of probabilities. The paper
(Wei et al., 2021, Table 3) averages the five highest test AUROCs among the epochs of each run, which selects on test.
"""

from typing import TypedDict


class Reference(TypedDict):
    """One published result; a number is None where it was not given, a deviation also where there was one run."""

    source: str
    model: str
    n_seeds: int
    auroc: float
    auroc_std: float | None
    f1: float | None
    accuracy: float | None
    remark: str


def _row(
    source: str,
    model: str,
    auroc: float,
    *,
    f1: float | None = None,
    accuracy: float | None = None,
    n_seeds: int = 1,
    auroc_std: float | None = None,
    remark: str = "",
) -> Reference:
    return {
        "source": source,
        "model": model,
        "n_seeds": n_seeds,
        "auroc": auroc,
        "auroc_std": auroc_std,
        "f1": f1,
        "accuracy": accuracy,
        "remark": remark,
    }


_ON_TEST = "hyperparameters chosen on test"
_FIVE_HIGHEST = "five highest test AUROCs of each run"

REFERENCES = (
    _row("method report", "ViT-B/16, ImageNet weights", 0.9485, n_seeds=10, auroc_std=0.0041, f1=0.835, accuracy=0.882),
    _row("method report", "ResNet-18, ImageNet weights", 0.942, f1=0.843, accuracy=0.886, remark=_ON_TEST),
    _row("method report", "ResNet-18, random weights", 0.916, f1=0.779, accuracy=0.840, remark=_ON_TEST),
    _row("method report", "FCNN, random weights", 0.743, f1=0.609, accuracy=0.726),
    _row("method report", "ResNet-18 and ViT-B/16, ensemble", 0.931, f1=0.829, accuracy=0.881, remark=_ON_TEST),
    _row("MHIST paper", "ResNet-18, ImageNet weights", 0.927, n_seeds=10, auroc_std=0.004, remark=_FIVE_HIGHEST),
    _row("MHIST paper", "ResNet-18, random weights", 0.845, n_seeds=10, auroc_std=0.011, remark=_FIVE_HIGHEST),
)
