"""Named sub-seeds: everything random in a run draws from the run's seed under a name of its own.

Two arms of one seed share every sub-seed (common random numbers), so they differ in the loss alone.
"""

import hashlib

ROLES = ("split", "corruption", "init", "order", "augment", "dropout")


def sub_seed(seed: int, role: str) -> int:
    """A 63-bit seed for one role; the same for the same seed and role, unrelated otherwise.

    >>> sub_seed(0, "init") == sub_seed(0, "init"), sub_seed(0, "init") == sub_seed(0, "order")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{role}".encode()).digest()[:8], "big") >> 1


def seed_tree(seed: int) -> dict[str, int]:
    """All sub-seeds of a run."""
    return {role: sub_seed(seed, role) for role in ROLES}
