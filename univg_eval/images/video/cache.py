"""A bounded store of decoded frames: samples on one video follow each other and share frames."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CACHE_VARIABLE", "FrameCache", "frame_cache"]

CACHE_VARIABLE = "UNIVG_FRAME_CACHE_MB"
DEFAULT_MB = 256

FrameKey = tuple[str, int, int, int]
"""(path, time of change in ns, size in bytes, frame number): a changed file is another video."""


class FrameCache:
    """The frames that were used last, up to `max_bytes` of pixels (0: none); thread-safe.

    A frame larger than the bound is not kept. Two threads that miss the same frame at once both
    decode it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._frames: OrderedDict[FrameKey, npt.NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, key: FrameKey) -> npt.NDArray[np.uint8] | None:
        """The frame, read-only, shape (height, width, 3); None if it is not held."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def put(self, key: FrameKey, frame: npt.NDArray[np.uint8]) -> None:
        """Hold a frame, which becomes read-only."""
        frame.flags.writeable = False
        with self._lock:
            held = self._frames.pop(key, None)
            if held is not None:
                self.n_bytes -= held.nbytes
            if frame.nbytes > self.max_bytes:
                return
            self._frames[key] = frame
            self.n_bytes += frame.nbytes
            while self.n_bytes > self.max_bytes:
                _, oldest = self._frames.popitem(last=False)
                self.n_bytes -= oldest.nbytes

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._frames.clear()
            self.n_bytes = 0


_shared: FrameCache | None = None
_shared_lock = threading.Lock()


def frame_cache() -> FrameCache:
    """The cache of this process.

    Its bound is ``$UNIVG_FRAME_CACHE_MB`` (whole megabytes of 2**20 bytes; 0 switches it off), else
    256 MB.

    Raises:
        UserError: the variable is no whole number from 0.
    """
    global _shared
    with _shared_lock:
        if _shared is None:
            text = os.environ.get(CACHE_VARIABLE, "").strip() or str(DEFAULT_MB)
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise UserError(
                    f"{CACHE_VARIABLE} is {text!r}; expected whole megabytes from 0, e.g. 256"
                )
            _shared = FrameCache(int(text) << 20)
        return _shared
