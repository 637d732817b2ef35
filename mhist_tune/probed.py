"""The measured settings of a study as a sentence."""

from collections.abc import Mapping
from typing import Any


def sentence(probed: Mapping[str, Any]) -> str:
    """Return the settings that a study trains with, followed by the timings that decided them.

    Args:
        probed: as from `probe.measure`.

    >>> bare = {"precision": "fp32", "memory_format": "contiguous", "compile": "off", "images_per_s": 15.04}
    >>> sentence({**bare, "device": "a GPU", "n_images": 8, "timings": [bare, {**bare, "precision": "bf16"}]})
    'fp32 contiguous; images/s of 8 at once on a GPU: fp32 contiguous 15.0, bf16 contiguous 15.0'
    """
    text = _setting(probed)
    if limit := probed.get("micro_batch_size"):
        text += f", at most {limit} images at once"
    timings = probed.get("timings", ())
    if not timings:
        return f"{text}; fixed by the definition" if "timings" in probed else text
    rates = ", ".join(f"{_setting(timing)} {_rate(timing['images_per_s'])}" for timing in timings)
    return f"{text}; images/s of {probed['n_images']} at once on {probed['device']}: {rates}"


def _setting(values: Mapping[str, Any]) -> str:
    return f"{values['precision']} {values['memory_format']}" + (" compiled" if values.get("compile") == "on" else "")


def _rate(images_per_s: float | None) -> str:
    return "ruled out" if images_per_s is None else f"{images_per_s:.1f}"
