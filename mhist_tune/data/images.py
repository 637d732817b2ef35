"""Images in memory with their labels and votes, and subsets of them that copy no pixel."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mhist_tune.arrays import Int64Array

MAX_SHARE = 0.25
"""The share of a GPU's free memory that a set of images may take; a larger set stays on the CPU."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels and votes.

    A subset shares the pixels of its set and holds the rows of its own images.

    Attributes:
        pixels: uint8 [N, 3, H, W], in memory, in the mapped cache file or on a GPU. They include this set's images.
        labels: float32 [n], 1 = SSA.
        votes: int64 [n], 0..7.
        names: file names, [n].
        groups: the patient or slide of each image, [n]; None if the data set names none.
        rows: int64 [n] on the device of the pixels: the index of each image in the pixels. None for all, in order.
        mapping: the mapped cache file; None if the pixels are not mapped from a file.
        is_pinned: whether batches are read into page-locked memory, so that a GPU copies them while it computes.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    rows: torch.Tensor | None = None
    mapping: mmap.mmap | None = None
    is_pinned: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def images(self) -> torch.Tensor:
        """All images of the set, uint8 [n, 3, H, W]; a copy if the set is a subset."""
        return self.pixels if self.rows is None else self._read(self.rows)

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """Return a copy of the images at ``indices`` (int64 [m], on the device of the pixels), uint8 [m, 3, H, W]."""
        return self._read(indices if self.rows is None else self.rows[indices])

    def split(self, n: int) -> Iterator[torch.Tensor]:
        """Yield all images in order, up to n at a time, as `torch.split` does."""
        for start in range(0, len(self), n):
            yield self.at(torch.arange(start, min(start + n, len(self)), device=self.pixels.device))

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set with its images on a device; the set itself if they are there, as a mapped file is on a CPU.

        Images that would take more than `MAX_SHARE` of a GPU's free memory stay on the CPU, as do those of all subsets
        of the set. They are sent batch by batch.
        """
        is_on_device = self.pixels.device.type == device.type and device.index in (None, self.pixels.device.index)
        if is_on_device or self.is_pinned:
            return self
        n_bytes = len(self) * self.pixels[0].nbytes
        if device.type == "cuda" and n_bytes > MAX_SHARE * torch.cuda.mem_get_info(device)[0]:
            return replace(self, is_pinned=True)
        pixels = self.images.to(device)
        self._forget()
        return replace(self, pixels=pixels, rows=None, mapping=None)

    def take(self, indices: Int64Array | Sequence[int]) -> "ImageSet":
        """Return the set of the images at ``indices`` (any order, repeats allowed)."""
        chosen = np.asarray(indices, dtype=np.int64)
        at = torch.from_numpy(chosen)
        rows = at.to(self.pixels.device)
        return replace(
            self,
            rows=rows if self.rows is None else self.rows[rows],
            labels=self.labels[at],
            votes=self.votes[at],
            names=tuple(self.names[index] for index in chosen),
            groups=None if self.groups is None else tuple(self.groups[index] for index in chosen),
        )

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        shape = (len(rows), *self.pixels.shape[1:])
        read = torch.empty(shape, dtype=torch.uint8, device=self.pixels.device, pin_memory=self.is_pinned)
        torch.index_select(self.pixels, 0, rows, out=read)  # on a CPU many times faster than self.pixels[rows]
        self._forget()
        return read

    def _forget(self) -> None:
        """Unmap the pages that were read from the file. They stay in the system's cache, which all processes share."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)
