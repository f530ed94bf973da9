"""Give the ink finder to whichever threads of a process ask for it; it is loaded when the first one does."""

from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.runtimes import InkFinder
from batchdigits.preprocessing.finder import InkMaps, Kinds
from batchdigits.settings import Runtime


class SharedFinder:
    """The ink finder of a process: a context manager."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        """Name it; nothing is loaded yet.

        Args:
            folder: The bundle's directory.
            runtime: What carries it out.
        """
        self.folder = folder
        self.runtime = runtime
        self._finder = InkFinder(folder, runtime=runtime)
        self._lock = Lock()
        self._entered = ExitStack()
        self._is_loaded = False

    def __enter__(self) -> "SharedFinder":
        """Load nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        with self._lock:
            self._entered.close()
            self._is_loaded = False

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
        """Find ink, as `InkFinder` does.

        Raises:
            BundleError: It cannot be loaded.
            UsageError: The runtime is not installed.
        """
        self.load()
        with self._lock:
            return self._finder(looks)

    def load(self) -> None:
        """Load it, unless that was done before.

        Raises:
            BundleError: It cannot be loaded.
            UsageError: The runtime is not installed.
        """
        with self._lock:
            if not self._is_loaded:
                self._entered.enter_context(self._finder)
                self._is_loaded = True
