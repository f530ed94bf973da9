"""Give each process that reads pages the ink finder: one of its own, or that of the process which asked it.

LiteRT starts so soon that each has its own. TensorFlow does not, so that the run's own process has the only one, and
looks come to it through pipes.
"""

from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.runtimes import InkFinder
from batchdigits.preprocessing.finder import InkMaps, InkNetwork, Kinds
from batchdigits.settings import Runtime


class SharedFinder:
    """The ink finder of a process, loaded when it is asked first, whichever threads ask: a context manager."""

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
        with self._lock:
            if not self._is_loaded:
                self._entered.enter_context(self._finder)
                self._is_loaded = True
            return self._finder(looks)

    def of_process(self, ask_back: InkNetwork) -> InkNetwork:
        """Give what a process that this one is handed to finds ink by.

        Args:
            ask_back: Asks the process that started it.
        """
        return SharedFinder(self.folder, self.runtime) if self.runtime is Runtime.LITERT else ask_back

    def __reduce__(self) -> tuple[type, tuple[Path, Runtime]]:
        """Hand it to another process: by its name, and not loaded."""
        return SharedFinder, (self.folder, self.runtime)
