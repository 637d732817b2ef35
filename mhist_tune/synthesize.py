"""H&E-like images of colorectal crypts in MHIST's layout, for demos and tests: free to share, learnable, not trivial.

Round to straight crypts with smooth lumina stand for hyperplastic polyps (HP); with severity their outlines grow teeth,
as in sessile serrated adenomas (SSA). An image's votes are its severity in eighths, so images of 3 and 4 votes look
much alike and the hard cases are those that annotators would dispute. Teeth change a crypt's outline and leave its
area: class and colour are nearly unrelated, and staining varies from image to image.
"""

import csv
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mhist_tune.annotations import CSV_NAME, IMAGE_FOLDER, REQUIRED_COLUMNS
from mhist_tune.errors import DataError, UsageError
from mhist_tune.mhist import MHIST_VOTES, MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS

MIN_IMAGES = 24
MAX_IMAGES = sum(sum(counts) for counts in MHIST_VOTES.values())
MIN_IMAGE_SIZE = 16

# Optical density of unit stain in red, green, blue: the reference of Macenko et al. 2009 (ISBI, 1107-1110).
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)

# Standard deviations of the severity shown around the severity meant. They set how hard the task is.
IMAGE_DISPUTE = 0.17
CRYPT_DISPUTE = 0.30

Plane: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]


def synthesize(root: Path, *, n_images: int = 400, image_size: int = 224, seed: int = 0) -> None:
    """Write ``root/annotations.csv`` and ``root/images/*.png`` (square, ``image_size`` px); all of it or nothing.

    Partitions and votes keep MHIST's proportions; 3,152 images have its very counts. Image i of a seed shows the same
    tissue at every image size.

    Raises:
        UsageError: ``n_images`` outside 24..3152 or ``image_size`` below 16.
        DataError: ``root`` holds a table or images already, or cannot be written.
    """
    if not MIN_IMAGES <= n_images <= MAX_IMAGES:
        raise UsageError(f"the number of images must be from {MIN_IMAGES} to {MAX_IMAGES}, got {n_images}")
    if image_size < MIN_IMAGE_SIZE:
        raise UsageError(f"the image size must be at least {MIN_IMAGE_SIZE} px, got {image_size}")
    taken = next((root / name for name in (CSV_NAME, IMAGE_FOLDER) if (root / name).exists()), None)
    if taken is not None:
        raise DataError(f"{taken} is there already", hint="choose another folder; nothing is overwritten")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=root) as folder:
            partial = Path(folder)
            _write(partial, n_images=n_images, image_size=image_size, seed=seed)
            # The table comes last: a folder that has one is complete.
            for name in (IMAGE_FOLDER, CSV_NAME):
                (partial / name).replace(root / name)
    except OSError as error:
        raise DataError(
            f"cannot write to {root}: {error.strerror}", hint="choose a folder that can be written"
        ) from error


def votes_of_images(n_images: int) -> list[tuple[str, int]]:
    """Return (partition, votes) of each of ``n_images`` images in MHIST's proportions, by largest remainders."""
    sizes = _apportion(n_images, [sum(counts) for counts in MHIST_VOTES.values()])
    return [
        (partition, votes)
        for (partition, counts), size in zip(MHIST_VOTES.items(), sizes, strict=True)
        for votes, n_with_votes in enumerate(_apportion(size, counts))
        for _ in range(n_with_votes)
    ]


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    shares = np.asarray(weights) * total / sum(weights)
    counts = np.floor(shares).astype(int)
    largest = np.argsort(counts - shares, kind="stable")
    counts[largest[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _write(root: Path, *, n_images: int, image_size: int, seed: int) -> None:
    images = votes_of_images(n_images)
    np.random.default_rng([seed, 0]).shuffle(images)
    names = [f"SYN_{index:04d}.png" for index in range(n_images)]
    (root / IMAGE_FOLDER).mkdir()

    def draw(index: int) -> None:
        rng = np.random.default_rng([seed, 1, index])
        severity = (images[index][1] + rng.uniform()) / (N_ANNOTATORS + 1)
        pixels = render(rng, severity=severity, image_size=image_size)
        Image.fromarray(pixels).save(root / IMAGE_FOLDER / names[index], compress_level=1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(draw, range(n_images)))
    with (root / CSV_NAME).open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(REQUIRED_COLUMNS)
        for name, (partition, votes) in zip(names, images, strict=True):
            label = POSITIVE_CLASS if votes >= MIN_POSITIVE_VOTES else NEGATIVE_CLASS
            writer.writerow((name, label, votes, partition))


def render(rng: np.random.Generator, *, severity: float, image_size: int) -> Pixels:
    """Draw one square of tissue, uint8 [image_size, image_size, 3]; severity 0..1 sets how serrated its crypts are."""
    y, x = (np.indices((image_size, image_size), dtype=np.float32) + np.float32(0.5)) / np.float32(image_size)
    hematoxylin, eosin = _stroma(rng, x, y)
    # Annotators disagree and sections are cut at a slant: severity is seen through noise, per image and per crypt.
    shown = severity + rng.normal(scale=IMAGE_DISPUTE)
    for crypt in _crypt_centres(rng):
        _draw_crypt(
            rng, x, y, hematoxylin, eosin, centre=crypt, teeth=max(0.0, shown + rng.normal(scale=CRYPT_DISPUTE))
        )
    return _stain(rng, hematoxylin, eosin)


def _stroma(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    size = len(x)
    cloudy = _noise(rng, size, 6)
    fibres = _noise(rng, size, (40, 9))
    eosin = 0.38 + 0.07 * cloudy + 0.08 * fibres
    hematoxylin = 0.10 + 0.03 * cloudy
    nuclei = np.zeros_like(x)
    spread = 0.011
    for centre_x, centre_y in rng.uniform(size=(int(rng.integers(90, 200)), 2)):
        rows, columns = _window(centre_x, centre_y, 3 * spread, size)
        squared = (x[rows, columns] - centre_x) ** 2 + (y[rows, columns] - centre_y) ** 2
        np.maximum(nuclei[rows, columns], np.exp(-((squared / spread**2) ** 2)), out=nuclei[rows, columns])
    return hematoxylin + 0.75 * nuclei, eosin


def _crypt_centres(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return crypt centres [n, 2] of a jittered, turned hexagonal lattice that covers the unit square."""
    pitch = rng.uniform(0.36, 0.46)
    steps = np.arange(-4, 5)
    column, row = (grid.ravel() for grid in np.meshgrid(steps, steps))
    lattice = pitch * np.stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)], axis=1)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centres = lattice @ turn + rng.uniform(0, 1, size=2) + rng.normal(scale=0.08 * pitch, size=lattice.shape)
    return np.asarray(centres[((centres > -0.2) & (centres < 1.2)).all(axis=1)])


def _draw_crypt(
    rng: np.random.Generator,
    x: Plane,
    y: Plane,
    hematoxylin: Plane,
    eosin: Plane,
    *,
    centre: NDArray[np.float64],
    teeth: float,
) -> None:
    """Draw one crypt into both stain planes, in place: nuclei at its base, pale mucin, an open lumen."""
    radius = rng.uniform(0.13, 0.17)
    stretch = rng.uniform(1.0, 1.45)
    angle = rng.uniform(0, np.pi)
    phase = rng.uniform(0, 2 * np.pi, size=4)
    n_teeth = int(rng.integers(6, 10))
    lumen_share = rng.uniform(0.42, 0.62)

    rows, columns = _window(centre[0], centre[1], 1.6 * radius * stretch, len(x))
    along = (x[rows, columns] - centre[0]) * np.cos(angle) + (y[rows, columns] - centre[1]) * np.sin(angle)
    across = (y[rows, columns] - centre[1]) * np.cos(angle) - (x[rows, columns] - centre[0]) * np.sin(angle)
    distance = np.hypot(along / stretch, across) / radius
    theta = np.arctan2(across, along / stretch)

    wave = _triangle(n_teeth * theta + phase[0] + 0.5 * np.sin(theta + phase[1]))
    height = min(0.08 + 0.36 * teeth, 0.5)
    wall = 1 + 0.06 * np.sin(2 * theta + phase[2]) + 0.04 * np.sin(3 * theta + phase[3]) + 0.12 * height * wave
    # The mean of wave squared is 1/3: the division keeps the lumen's area, so that teeth do not show as whiteness.
    lumen = lumen_share * (1 + height * wave) / np.sqrt(1 + height**2 / 3)
    # Edges are as soft as a pixel is wide.
    sharpness = radius * len(x) * 1.5
    inside = _edge((wall - distance) * sharpness)
    open_ = _edge((lumen - distance) * sharpness)

    n_nuclei = round(30 * radius / 0.15)
    base = np.exp(-(((wall - distance - 0.15) / 0.09) ** 2))
    nuclei = base * (0.55 + 0.45 * np.cos(n_nuclei * theta))
    goblet = 0.5 + 0.5 * np.sin(11 * theta + phase[3])
    hematoxylin[rows, columns] += inside * (0.10 + 0.75 * nuclei - hematoxylin[rows, columns])
    eosin[rows, columns] += inside * (0.42 - 0.12 * goblet - eosin[rows, columns])
    hematoxylin[rows, columns] *= 1 - 0.85 * open_
    eosin[rows, columns] *= 1 - 0.88 * open_


def _stain(rng: np.random.Generator, hematoxylin: Plane, eosin: Plane) -> Pixels:
    """Return the image by Beer and Lambert's law, under a stain, a lamp and a sensor of its own; uint8 [H, W, 3]."""
    stains = np.array([HEMATOXYLIN, EOSIN]) * rng.normal(1, 0.06, size=(2, 3)) * rng.uniform(0.75, 1.3, size=(2, 1))
    density = hematoxylin[..., None] * stains[0].astype(np.float32) + eosin[..., None] * stains[1].astype(np.float32)
    lamp = rng.uniform(0.92, 0.99, size=3).astype(np.float32)
    light = 255 * lamp * np.exp(-1.6 * density) + rng.standard_normal(density.shape, dtype=np.float32) * 4
    return np.asarray(np.clip(light, 0, 255), dtype=np.uint8)


def _noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int]) -> Plane:
    """Return smooth noise [size, size], about standard normal, with ``cells`` bumps along each (height, width) edge."""
    coarse = rng.standard_normal(cells if isinstance(cells, tuple) else (cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _window(centre_x: float, centre_y: float, reach: float, size: int) -> tuple[slice, slice]:
    """Return the rows and columns within ``reach`` (in widths of the image) of a centre."""

    def span(centre: float) -> slice:
        return slice(max(0, int((centre - reach) * size)), max(0, int((centre + reach) * size) + 1))

    return span(centre_y), span(centre_x)


def _triangle(angle: Plane) -> Plane:
    """Return a triangle wave of period 2 pi in -1..1."""
    return np.asarray(2 / np.pi * np.arcsin(np.sin(angle)), dtype=np.float32)


def _edge(signed_distance: Plane) -> Plane:
    """Return 0..1 across an edge, 1 where ``signed_distance`` (about a pixel) is positive."""
    return np.asarray(1 / (1 + np.exp(-np.clip(2 * signed_distance, -30, 30))), dtype=np.float32)
