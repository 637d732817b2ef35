"""Facts of the MHIST data set, and the decision threshold. No other module repeats them."""

N_ANNOTATORS = 7
"""Pathologists who labelled each image."""
MIN_POSITIVE_VOTES = 4
"""The majority: an image's label is 1 exactly when at least this many annotators chose SSA."""

POSITIVE_CLASS = "SSA"
"""The class with label 1, sessile serrated adenoma: precision, recall and F1 are about this class."""
NEGATIVE_CLASS = "HP"

MHIST_VOTES = {
    "train": (537, 497, 302, 209, 151, 106, 154, 219),
    "test": (186, 208, 124, 99, 65, 62, 96, 137),
}
"""MHIST's images with 0..7 votes for SSA in each partition, counted in its annotations.csv: 2,175 and 977 in all."""
N_TEST_IMAGES = sum(MHIST_VOTES["test"])
N_TEST_SSA = sum(MHIST_VOTES["test"][MIN_POSITIVE_VOTES:])

N_SLIDES = 328
"""Slides that MHIST's 3,152 images come from (Wei et al., 2021). No image names its slide."""

THRESHOLD = 0.5
"""The decision threshold where none was fixed on held-out images: a higher probability is called SSA."""
