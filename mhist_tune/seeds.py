"""Random seeds, derived from their purpose."""

import hashlib


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**31), derived from the text of all parts and from nothing else."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
