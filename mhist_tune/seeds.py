"""Seeds that depend on what they are for and on nothing else."""

import hashlib


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**31) that depends on all parts and on nothing else."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
