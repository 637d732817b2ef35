"""Synthetic H&E-like images of colorectal crypts in MHIST's layout, for demos and tests. They are free to share.

Hyperplastic polyps (HP) have crypts with smooth outlines. With rising severity the outlines get teeth, as in sessile
serrated adenomas (SSA). The severity 0..1 of an image decides its votes: 0 to 1/8 gives no vote, 7/8 to 1 gives 7.
Images with 3 and 4 votes therefore look alike, as the images that annotators dispute do. Teeth change the outline of a
crypt and not its area, so class and colour are nearly independent. The staining varies from image to image.
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

from mhist_tune.data import description
from mhist_tune.data.annotations import CSV_NAME, IMAGE_FOLDER, REQUIRED_COLUMNS
from mhist_tune.errors import DataError, UsageError
from mhist_tune.mhist import MHIST_VOTES, MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS

MIN_IMAGES = 24
MAX_IMAGES = sum(sum(counts) for counts in MHIST_VOTES.values())
MIN_IMAGE_SIZE = 16

# Optical density of the stains in R, G, B: the reference values of Macenko et al. 2009 (ISBI, 1107-1110).
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)

# Standard deviations of the drawn severity around the true one, per image and per crypt. They set how hard the task is.
IMAGE_DISPUTE = 0.17
CRYPT_DISPUTE = 0.30

Plane: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]


_DESCRIPTION = """description = "generated images of crypts"
source = "mhist-tune data synthesize"
votes = "simulated"
"""


def synthesize(root: Path, *, n_images: int = 400, image_size: int = 224, seed: int = 0) -> None:
    """Write a data set of ``root/annotations.csv`` and ``root/images/*.png``, or nothing if that fails.

    Partitions and votes have MHIST's proportions; with 3,152 images they have its counts. Image i of a seed shows the
    same tissue at every image size.

    Args:
        root: folder to write into; created if it does not exist.
        n_images: 24 to 3,152.
        image_size: side length of the square images in pixels, at least 16.
        seed: decides votes and tissue.

    Raises:
        UsageError: ``n_images`` or ``image_size`` is out of range.
        DataError: ``root`` contains annotations or images already, or cannot be written.
    """
    if not MIN_IMAGES <= n_images <= MAX_IMAGES:
        raise UsageError(f"the number of images must be from {MIN_IMAGES} to {MAX_IMAGES}, got {n_images}")
    if image_size < MIN_IMAGE_SIZE:
        raise UsageError(f"the image size must be at least {MIN_IMAGE_SIZE} px, got {image_size}")
    existing = next((root / name for name in (CSV_NAME, IMAGE_FOLDER) if (root / name).exists()), None)
    if existing is not None:
        raise DataError(f"{existing} exists already", hint="choose another folder; nothing is overwritten")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=root) as folder:
            partial = Path(folder)
            _write(partial, n_images=n_images, image_size=image_size, seed=seed)
            # The annotations come last: a folder that has them is complete.
            for name in (IMAGE_FOLDER, description.NAME, CSV_NAME):
                (partial / name).replace(root / name)
    except OSError as error:
        raise DataError(
            f"cannot write to {root}: {error.strerror}", hint="choose a folder that can be written"
        ) from error


def votes_of_images(n_images: int) -> list[tuple[str, int]]:
    """Return (partition, votes) of each image, in MHIST's proportions rounded by the largest remainder method."""
    sizes = _apportion(n_images, [sum(counts) for counts in MHIST_VOTES.values()])
    return [
        (partition, votes)
        for (partition, counts), size in zip(MHIST_VOTES.items(), sizes, strict=True)
        for votes, n_with_votes in enumerate(_apportion(size, counts))
        for _ in range(n_with_votes)
    ]


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole numbers in proportion to `weights` whose sum is `total` (largest remainder method)."""
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
    (root / description.NAME).write_text(_DESCRIPTION, encoding="ascii")
    with (root / CSV_NAME).open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(REQUIRED_COLUMNS)
        for name, (partition, votes) in zip(names, images, strict=True):
            label = POSITIVE_CLASS if votes >= MIN_POSITIVE_VOTES else NEGATIVE_CLASS
            writer.writerow((name, label, votes, partition))


def render(rng: np.random.Generator, *, severity: float, image_size: int) -> Pixels:
    """Draw one image of tissue, uint8 [image_size, image_size, 3].

    Args:
        rng: decides everything but the severity.
        severity: 0..1, how serrated the crypts are.
        image_size: side length in pixels.
    """
    y, x = (np.indices((image_size, image_size), dtype=np.float32) + np.float32(0.5)) / np.float32(image_size)
    hematoxylin, eosin = _stroma(rng, x, y)
    # Annotators disagree, and sections are cut at a slant: the severity has noise, per image and per crypt.
    noisy_severity = severity + rng.normal(scale=IMAGE_DISPUTE)
    for centre in _crypt_centres(rng):
        teeth = max(0.0, noisy_severity + rng.normal(scale=CRYPT_DISPUTE))
        _draw_crypt(rng, x, y, hematoxylin, eosin, centre=centre, teeth=teeth)
    return _stain(rng, hematoxylin, eosin)


def _stroma(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Return the amounts of hematoxylin and eosin of the tissue between the crypts, [size, size] each."""
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
    """Return crypt centres (x, y) [n, 2] on a jittered, rotated hexagonal lattice that covers the unit square."""
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
    """Draw one crypt into both stain planes, in place: nuclei at its base, pale mucin, an open lumen.

    Args:
        rng: decides size, shape and orientation.
        x, y: coordinates of the pixels in 0..1, [size, size].
        hematoxylin, eosin: amounts of stain, [size, size].
        centre: (x, y).
        teeth: height of the teeth, at least 0.
    """
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
    # The mean of wave squared is 1/3. The division keeps the area of the lumen, so that teeth do not make images paler.
    lumen = lumen_share * (1 + height * wave) / np.sqrt(1 + height**2 / 3)
    # An edge is blurred over about one pixel.
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
    """Return the image of both stains, uint8 [H, W, 3], by the Beer-Lambert law.

    Stain colours, light source and sensor noise are drawn for each image.
    """
    stains = np.array([HEMATOXYLIN, EOSIN]) * rng.normal(1, 0.06, size=(2, 3)) * rng.uniform(0.75, 1.3, size=(2, 1))
    density = hematoxylin[..., None] * stains[0].astype(np.float32) + eosin[..., None] * stains[1].astype(np.float32)
    lamp = rng.uniform(0.92, 0.99, size=3).astype(np.float32)
    light = 255 * lamp * np.exp(-1.6 * density) + rng.standard_normal(density.shape, dtype=np.float32) * 4
    return np.asarray(np.clip(light, 0, 255), dtype=np.uint8)


def _noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int]) -> Plane:
    """Return smooth noise [size, size], about standard normal, from a grid of ``cells`` (height, width) values."""
    coarse = rng.standard_normal(cells if isinstance(cells, tuple) else (cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _window(centre_x: float, centre_y: float, reach: float, size: int) -> tuple[slice, slice]:
    """Return the rows and columns within ``reach`` of a centre, both as shares of the image's side."""

    def span(centre: float) -> slice:
        return slice(max(0, int((centre - reach) * size)), max(0, int((centre + reach) * size) + 1))

    return span(centre_y), span(centre_x)


def _triangle(angle: Plane) -> Plane:
    """Return a triangle wave with period 2 pi and range -1..1."""
    return np.asarray(2 / np.pi * np.arcsin(np.sin(angle)), dtype=np.float32)


def _edge(signed_distance: Plane) -> Plane:
    """Return a smooth step: near 0 where ``signed_distance`` is negative, near 1 where it is positive."""
    return np.asarray(1 / (1 + np.exp(-np.clip(2 * signed_distance, -30, 30))), dtype=np.float32)
