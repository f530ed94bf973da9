"""Tell which disks lie under folders: their names change where one is unmounted, or another is mounted there.

A folder on which nothing is mounted any more looks like one whose files were deleted.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")  # of Linux
_MOUNT_POINT = 4  # of the words of its lines
_OCTAL = re.compile(rb"\\([0-7]{3})")


def disks_under(folders: Iterable[str]) -> dict[str, str]:
    """Name the disks that folders lie on, and those that are mounted below them.

    Args:
        folders: Absolute; those that cannot be reached are left out.

    Returns:
        By the absolute folder, as the files in it are called, what tells its file system from others.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    """
    found: dict[str, str] = {}
    mounts = list(_mount_points())
    for folder in folders:
        with suppress(OSError):
            found[folder] = _file_system(folder)
        real = os.path.realpath(folder).rstrip("/") + "/"
        for mount in mounts:
            if mount.startswith(real):
                below = f"{folder.rstrip('/')}/{mount.removeprefix(real)}"
                with suppress(OSError):
                    found[below] = _file_system(below)
    return found


def _mount_points() -> Iterator[str]:
    """Give the absolute paths on which something is mounted; none where the system does not tell."""
    with suppress(OSError):
        for line in _MOUNTS.read_bytes().splitlines():
            path = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[_MOUNT_POINT])
            yield os.fsdecode(path)


def _file_system(folder: str) -> str:
    """Name a file system: most have an identity of their own; a share has the number that it is mounted under."""
    return str(os.statvfs(folder).f_fsid or os.stat(folder).st_dev)  # noqa: PTH116
