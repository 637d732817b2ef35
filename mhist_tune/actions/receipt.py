"""The receipt of an opening, which is printed before a test image is read."""

from collections.abc import Sequence

from mhist_tune.storage.openings import OpeningRow
from mhist_tune.words import counted, ordinal, utc


def to_text(opening: OpeningRow, of_images: Sequence[OpeningRow]) -> str:
    """Return the receipt: what is opened, for which candidates, after how many looks, and its hash.

    Args:
        opening: as recorded.
        of_images: the openings of the same images by all studies.
    """
    before = [row for row in of_images if row.is_look and row.id < opening.id]
    lines = [
        ("study", f"{opening.study_name} ({opening.study})"),
        ("definition", f"SHA-256 {opening.definition_sha256}"),
        ("test rows", f"SHA-256 {opening.test_rows}"),
        ("candidates", candidates(opening)),
        ("reason", opening.reason),
        ("looks before", looks(before)),
        ("at", f"{utc(opening.opened_at)} by {opening.by}, version {opening.code_version}"),
        ("hash", opening.hash),
    ]
    title = f"Opening {opening.id} of the test partition, the {ordinal(len(before) + 1)} look at these images"
    return "\n".join([title, *(f"  {name:<12}  {text}" for name, text in lines)])


def one_line(opening: OpeningRow) -> str:
    """Return an opening in one line."""
    failed = "" if opening.failed is None else f"; failed before any prediction: {opening.failed}"
    return (
        f"{opening.id}  {utc(opening.opened_at)}  {opening.study_name or 'a deleted study'} ({opening.study[:8]})  "
        f"{candidates(opening)}  by {opening.by}: {opening.reason}{failed}  {opening.hash}"
    )


def candidates(opening: OpeningRow) -> str:
    """Return the trials and seeds that an opening is for."""
    payload = opening.payload
    seeds = payload.get("seeds", [])
    trials = [payload["trial"]] if "trial" in payload else payload.get("trials", [])
    text = f"trial {trials[0]}" if len(trials) == 1 else f"trials {', '.join(map(str, trials))}"
    if payload.get("default") not in (None, *trials):
        text += f" and the default, trial {payload['default']}"
    return f"{text}; {counted(len(seeds), 'seed')}: {', '.join(map(str, seeds))}"


def looks(openings: Sequence[OpeningRow]) -> str:
    """Return how many looks there were, and by which studies."""
    if not openings:
        return "none"
    by = "; ".join(
        f"opening {row.id} by {row.study_name or 'a deleted study'}, {utc(row.opened_at)}" for row in openings
    )
    return f"{len(openings)} ({by})"
