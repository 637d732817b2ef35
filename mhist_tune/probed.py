"""What was probed for a study, in words."""

from collections.abc import Mapping
from typing import Any


def sentence(probed: Mapping[str, Any]) -> str:
    """Return the settings that a study trains with, and the timings that they were chosen by.

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
    shown = ", ".join(f"{_setting(one)} {_rate(one['images_per_s'])}" for one in timings)
    return f"{text}; images/s of {probed['n_images']} at once on {probed['device']}: {shown}"


def _setting(one: Mapping[str, Any]) -> str:
    return f"{one['precision']} {one['memory_format']}" + (" compiled" if one.get("compile") == "on" else "")


def _rate(images_per_s: float | None) -> str:
    return "ruled out" if images_per_s is None else f"{images_per_s:.1f}"
