"""What the tests of writing share: a disk that is full, and a look into a folder."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """Let every file of this process be that large at most, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    """List what stands in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def written(path: Path) -> tuple[int, ...]:
    """Tell which file it is, and when it was written last: all of its status but when it was read."""
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns
