"""A hard binary task of scikit-learn's handwritten digits, as a data set in MHIST's layout."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mhist_tune.data.annotations import CSV_NAME, IMAGE_FOLDER, REQUIRED_COLUMNS
from mhist_tune.mhist import MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS

POSITIVE_DIGITS = (3, 5, 8)
ERROR_RATE = 0.25
"""How often an annotator errs. Of seven, the majority then errs for about one image in ten."""
NOISE = 4.0
"""The standard deviation of the noise of a pixel, whose values are 0 to 16."""
_SCALE = 4


def write(root: Path, *, seed: int) -> None:
    """Write the 1,797 images at 32 px. All are in the train partition but the last tenth."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    votes = np.where(
        np.isin(digits.target, POSITIVE_DIGITS),
        rng.binomial(N_ANNOTATORS, 1 - ERROR_RATE, len(digits.target)),
        rng.binomial(N_ANNOTATORS, ERROR_RATE, len(digits.target)),
    )
    noisy = digits.images + rng.normal(0.0, NOISE, digits.images.shape)
    pixels = np.clip(noisy * 255 / 16, 0, 255).astype(np.uint8).repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    (root / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (image, vote) in enumerate(zip(pixels, votes.tolist(), strict=True)):
        name = f"digit-{index:04d}.png"
        Image.fromarray(image).convert("RGB").save(root / IMAGE_FOLDER / name)
        label = POSITIVE_CLASS if vote >= MIN_POSITIVE_VOTES else NEGATIVE_CLASS
        rows.append((name, label, vote, "test" if index >= 0.9 * len(pixels) else "train"))
    with (root / CSV_NAME).open("w", newline="") as file:  # last: a folder that has it is complete
        csv.writer(file).writerows([REQUIRED_COLUMNS, *rows])
