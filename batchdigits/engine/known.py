"""Tell bytes whose pages are known: from the runs before, or since a worker of this one has told of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from batchdigits.records import Batch, KnownBytes

_SLOTS = 2**16  # for sums: 2 MiB in each worker, and what endings take
_BYTES = 32  # of a sum

Told = Mapping[str, bytes]
"""The sums of files, joined, by the ending under which they were read."""


class Known:
    """The sums of bytes that need not be read again, by the ending under which they were."""

    def __init__(self, before: KnownBytes = MappingProxyType({})) -> None:
        """Take what the ledger knew as the run began."""
        self._before = before
        self._sums = np.zeros((_SLOTS, _BYTES), np.uint8)
        self._endings = [""] * _SLOTS

    def has(self, ending: str, sha256: bytes) -> bool:
        """Tell whether bytes are known."""
        before = self._before.get(ending)
        if before is not None:
            at = int(np.searchsorted(before, np.bytes_(sha256)))
            if at < len(before) and before[at] == np.bytes_(sha256):
                return True
        slot = int.from_bytes(sha256[:4], "little") % _SLOTS
        return self._endings[slot] == ending and self._sums[slot].tobytes() == sha256

    def add(self, told: Told) -> None:
        """Add what was told of; of two sums that fall on one slot by how they begin, the later stays."""
        for ending, data in told.items():
            sums = np.frombuffer(data, np.uint8).reshape(-1, _BYTES)
            slots = sums[:, :4].copy().view("<u4")[:, 0] % _SLOTS
            self._sums[slots] = sums
            for slot in slots.tolist():
                self._endings[slot] = ending


def told(batch: Batch, endings: Sequence[str]) -> Told:
    """Sum up what was read of files, so that their bytes are known.

    Args:
        batch: What was read. A file with a fault is left out, since what was unforeseen may have no sum in its row.
        endings: Of its files.
    """
    pages = batch.pages
    whole = (pages["number"] == 1) & ~np.isin(pages["file"], pages["file"][pages["fault"]])
    found: dict[str, bytearray] = defaultdict(bytearray)
    for place, sha256 in zip(pages["file"][whole].tolist(), pages["sha256"][whole].tolist(), strict=True):
        found[endings[place]] += sha256
    return {ending: bytes(sums) for ending, sums in found.items()}
