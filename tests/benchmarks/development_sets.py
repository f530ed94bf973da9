"""Read the development sets that lie beside the checkout: measured on, never trained on, never shipped.

`../shared/dev` has small parts of hard sets, `../shared/data` digits that nothing may be trained on. Where an archive
is not there, a sentence says so.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.benchmarks.reading import SHARED, PageSet, decoded


class _Source(NamedTuple):
    """A set within an archive: the files `FOLDER/DIGIT/START…`."""

    name: str
    archive: str
    folder: str
    start: str = ""


_DEVELOPMENT = (
    _Source("phone photos", "dev/phone_cs114.tar.gz", "phone_cs114/"),
    _Source("printed form cells", "dev/form_cells.tar.gz", "form_cells/"),
    _Source("mark-table cells", "dev/exam_cells.tar.gz", "exam_cells/"),
    _Source("ballpoint crops", "dev/pens_kaggle.tar.gz", "pens_kaggle/"),
    _Source("drawn on screens", "dev/screen_drawn.tar.gz", "screen_drawn/"),
)
_OTHERS = (
    _Source("ZIP codes (USPS), 16×16", "data/usps_train.tar.gz", "usps_train/"),
    _Source("cut from paper", "data/photos.tar.gz", "photos/digits/", "deskool-"),
    _Source("newspaper cells", "data/photos.tar.gz", "photos/digits/", "image"),
)


def development_sets() -> Iterator[PageSet | str]:
    """Give each set, or a sentence for one that is not there."""
    for source in (*_DEVELOPMENT, *_OTHERS):
        archive = SHARED / source.archive
        if archive.is_file():
            yield replace(_read(source, archive), group=f"all of ../shared/{archive.parent.name}")
        else:
            yield f"../shared/{source.archive} is missing: {source.name}."


def _read(source: _Source, archive: Path) -> PageSet:
    """Decode the digits of one set, in the order of their names."""
    pages, full_resolution, labels, files = [], [], [], []
    with tarfile.open(archive) as members:
        for member in sorted(members.getmembers(), key=lambda member: member.name):
            path = Path(member.name)
            wanted = member.name.startswith(source.folder) and path.name.startswith(source.start)
            file = members.extractfile(member) if wanted and path.parent.name.isdigit() else None
            if file is None:
                continue
            page = decoded(file.read(), path.name)
            pages.append(page.grey)
            full_resolution.append(page.full_resolution)
            labels.append(int(path.parent.name))
            files.append("/".join(path.parts[-2:]))
    return PageSet(source.name, pages, np.array(labels, np.int8), full_resolution, files)
