"""The order of an epoch over rows that lie in large files: shuffled within windows, which are shuffled themselves.

A window is some blocks of neighbouring rows, so that what is read together lies together. Rows that fit into one window
are shuffled as a whole.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 4 << 20  # what is read at once: about a chunk file

Numbers = NDArray[np.int64]


class ShuffledWindows:
    """All of ``rows`` once in every epoch, in an order that depends on ``entropy`` and the epoch only.

    Parameters
    ----------
    rows : ascending, as they are stored
    block : neighbouring rows of a block, at least 1
    together : blocks of a window, at least 1
    entropy : what the draws depend on besides the epoch, such as [seed]
    """

    def __init__(self, rows: Numbers, *, block: int, together: int, entropy: list[int]) -> None:
        self.rows = rows
        self._entropy = entropy
        self._shuffle = lru_cache(maxsize=4)(self._shuffled)  # of an epoch's blocks, and of a window or two
        self._block = block
        self._blocks = max(1, -(-len(rows) // block))
        self._together = together
        self._ends = lru_cache(maxsize=2)(self._added_up)  # every batch asks, and there may be millions of blocks

    @property
    def whole(self) -> bool:
        """Whether everything is one window, whose stored rows are then the same in every epoch."""
        return self._together >= self._blocks

    def ends(self, epoch: int) -> Numbers:
        """Place behind the last row of each window of an epoch."""
        return self._ends(epoch)

    def _added_up(self, epoch: int) -> Numbers:
        places = np.minimum(np.arange(self._blocks + 1) * self._block, len(self.rows))
        sizes = np.diff(places)[self._block_order(epoch)]
        ends = np.cumsum(sizes)[self._together - 1 :: self._together]
        return ends if len(ends) and ends[-1] == len(self.rows) else np.append(ends, len(self.rows))

    def stored(self, epoch: int, window: int) -> Numbers:
        """Rows of a window, block after block as they are stored."""
        order = self._block_order(epoch)[window * self._together : (window + 1) * self._together]
        return np.concatenate([self.rows[i * self._block : (i + 1) * self._block] for i in order.tolist()])

    def order(self, epoch: int, window: int, count: int) -> Numbers:
        """Which of the ``count`` stored rows of a window comes first, second, and so on."""
        return self._shuffle(epoch, 1 + window, count)

    def _block_order(self, epoch: int) -> Numbers:
        if self.whole:
            return np.arange(self._blocks)
        return self._shuffle(epoch, 0, self._blocks)

    def _shuffled(self, epoch: int, number: int, count: int) -> Numbers:
        return np.random.default_rng([*self._entropy, epoch, number]).permutation(count)
