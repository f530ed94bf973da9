import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import StorageError, UsageError
from batchdigits.inference import bundle
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.settings import NormalisationSettings, Runtime
from batchdigits.training.datasets import labelled, shipped
from batchdigits.training.datasets.labelled import Labelled, fingerprint, join, split
from tests.sample_pages import on_page, one_of_each, write_png, write_tiff

DATA = Path(__file__).parents[2] / "data"
FINDER = SharedFinder(bundle.PACKAGED, Runtime.LITERT)


def read(source: Path | str, part: str = "train") -> Labelled:
    return labelled.read(str(source), FINDER, NormalisationSettings(), part=part)


def label_file(folder: Path, *lines: str, head: str = "path,label", mark: bytes = b"") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(mark + "".join(f"{line}\r\n" for line in (head, *lines)).encode())
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with `0.png` to `9.png`."""
    for digit, image in enumerate(one_of_each()):
        write_png(tmp_path / "pictures" / f"{digit}.png", image)
    return tmp_path / "pictures"


def labels(data: Labelled) -> list[int]:
    return data.labels.tolist()


# shipped sets


def test_a_shipped_set_is_normalised_like_any_other_images_and_named_by_its_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, digits = (array[:777] for array in shipped.mnist("test"))
    monkeypatch.setattr(shipped, "mnist", lambda part: (images, digits))
    data = read("mnist", part="test")
    expected = normalise(list(images), FINDER)
    assert (data.pixels == expected.pixels).all()
    assert (data.ink == expected.ink).all()
    assert (len(data), labels(data), data.unread) == (777, digits.tolist(), [])
    assert data.names[:2] == ["mnist test 0", "mnist test 1"]


# folders


def test_a_folder_per_digit_gives_each_image_the_digit_of_its_folder(tmp_path: Path) -> None:
    for digit, image in enumerate(one_of_each()):
        write_png(tmp_path / str(digit) / "deep" / "a.png", image)
        write_png(tmp_path / str(digit) / "b.png", on_page(image))
    data = read(tmp_path)
    assert sorted(labels(data)) == sorted(list(range(10)) * 2)
    assert data.pixels.shape == (20, 28, 28)
    assert data.unread == []
    expected = normalise(list(one_of_each()), FINDER).pixels
    for name, label, pixels in zip(data.names, data.labels, data.pixels, strict=True):
        if name.endswith("a.png"):
            assert (pixels == expected[label]).all()


def test_folders_of_other_names_are_left_out_with_a_warning_that_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("3", "10", "03", "three", "unsorted"):
        write_png(tmp_path / name / "a.png", one_of_each()[3])
    (tmp_path / "notes.txt").touch()
    with caplog.at_level(logging.WARNING, "batchdigits"):
        assert labels(read(tmp_path)) == [3]
    assert [f"{tmp_path}/{name} " in caplog.text for name in ("10", "03", "three", "unsorted")] == [True] * 4
    assert "notes.txt" not in caplog.text


def test_a_folder_without_digits_and_one_without_images_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "seven").mkdir()
    with pytest.raises(UsageError, match="no sub-folder named 0 to 9"):
        read(tmp_path)
    (tmp_path / "7").mkdir()
    with pytest.raises(UsageError, match="hold no image"):
        read(tmp_path)


# label files


def test_paths_of_a_label_file_are_relative_to_its_own_folder_and_may_be_absolute(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    path = label_file(pictures.parent, "pictures/4.png,4", f"{pictures / '2.png'},2", "pictures/../pictures/9.png,9")
    assert sorted(labels(read(path))) == [2, 4, 9]


def test_a_byte_order_mark_other_columns_and_their_order_do_not_matter(pictures: Path) -> None:
    path = label_file(pictures, "x,4,4.png,", "y,2,2.png,NA", head="writer,label,path,note", mark=b"\xef\xbb\xbf")
    assert labels(read(path)) == [4, 2]


def test_names_with_commas_spaces_and_other_scripts_are_read(pictures: Path) -> None:
    for name in ("a, b.png", "ü 数.png", "NA", "007"):
        shutil.copyfile(pictures / "5.png", pictures / name)
    path = label_file(pictures, '"a, b.png",5', "ü 数.png,5", "NA,5", "007,5")
    assert labels(read(path)) == [5, 5, 5, 5]


def test_a_url_in_a_label_file_is_refused_and_not_repeated(pictures: Path) -> None:
    path = label_file(pictures, "4.png,4", "sftp://me:hunter2@host/5.png,5")
    with pytest.raises(UsageError, match=r"labels\.csv names has to be on this machine") as caught:
        read(path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("label", ["seven", "10", "-1", "", "7.0", " 7", "٧", "²"])
def test_a_label_that_is_no_digit_is_a_usage_error_that_names_it_and_its_row(label: str, pictures: Path) -> None:
    path = label_file(pictures, "4.png,4", f"5.png,{label}", "6.png,x")
    with pytest.raises(UsageError, match=r"labels\.csv has labels that are no digit.* in row 2, and 1 more") as caught:
        read(path)
    assert repr(label) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"file,digit\n4.png,4\n", "lacks the column label and path; expected path,label"),
        (b"path;label\n4.png;4\n", "lacks the column"),
        (b"", "labels.csv"),
        (b'path,label\n"4.png,4\n', "labels.csv"),
        (b"path,label\n4.png,4\n4.png,4,4,4\n", "labels.csv"),
        (b"path,label\n\xff.png,4\n", "UTF-8"),
        (b"path,label\n", "no image"),
    ],
)
def test_a_label_file_that_makes_no_sense_is_a_usage_error_in_one_line(text: bytes, words: str, pictures: Path) -> None:
    (pictures / "labels.csv").write_bytes(text)
    with pytest.raises(UsageError) as caught:
        read(pictures / "labels.csv")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [",5", ".,5", "more,5"])
def test_a_row_that_names_no_file_does_not_label_all_files_of_a_folder(row: str, pictures: Path) -> None:
    shutil.copytree(pictures, pictures / "more")
    with pytest.raises(UsageError, match=r"labels\.csv"):
        read(label_file(pictures, row))


def test_a_file_that_is_labelled_twice_is_a_usage_error(pictures: Path) -> None:
    for path in ("4.png", "./4.png"):
        with pytest.raises(UsageError, match=r"4\.png is labelled twice"):
            read(label_file(pictures, "4.png,4", f"{path},9"))


def test_pages_without_a_label_are_named(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiff(pictures / "pages.tif", [on_page(one_of_each()[digit]) for digit in (3, 1, 4)])
    read(label_file(pictures, "pages.tif,3,1", "pages.tif,1,2", "pages.tif,4,3", head="path,label,page"))
    assert not caplog.records
    read(label_file(pictures, "pages.tif,3", "5.png,5"))
    [record] = caplog.records
    assert record.getMessage().startswith(f"Pages without a label are left out, of 1 files: {pictures}/pages.tif (2).")


def test_a_label_of_a_page_belongs_to_that_page(pictures: Path) -> None:
    write_tiff(pictures / "pages.tif", [on_page(one_of_each()[digit]) for digit in (3, 1, 4)])
    data = read(label_file(pictures, "pages.tif,4,3", "5.png,5,1", "pages.tif,3,1", head="path,label,page"))
    expected = normalise([on_page(one_of_each()[digit]) for digit in (3, 4)], FINDER).pixels
    names = [name.rpartition("/")[2] for name in data.names]
    found = dict(zip(names, data.pixels, strict=True))
    assert dict(zip(names, labels(data), strict=True)) == {"pages.tif": 3, "pages.tif page 3": 4, "5.png": 5}
    assert (found["pages.tif"] == expected[0]).all()
    assert (found["pages.tif page 3"] == expected[1]).all()


def test_an_image_that_a_label_file_names_and_that_does_not_exist_is_a_storage_error(pictures: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.png does not exist"):
        read(label_file(pictures, "4.png,4", "nowhere.png,5"))


def test_a_source_that_does_not_exist_is_a_storage_error_that_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing do not exist; name a folder, a CSV file, or .*mnist"):
        read(tmp_path / "missing")


# what cannot be read


def test_an_image_that_cannot_be_read_is_kept_with_its_fault_and_label_and_its_neighbours_keep_theirs(
    pictures: Path,
) -> None:
    for name in ("truncated.jpg", "bomb.png", "zero_bytes.png", "scan.pdf"):
        shutil.copyfile(DATA / name, pictures / name)
    rows = ["truncated.jpg,1", "4.png,4", "bomb.png,2", "zero_bytes.png,3", "5.png,5", "scan.pdf,6"]
    data = read(label_file(pictures, *rows))
    assert labels(data) == [4, 5]
    assert (data.pixels == normalise([one_of_each()[4], one_of_each()[5]], FINDER).pixels).all()
    unread = sorted((Path(name).name, label) for name, _, label in data.unread)
    assert unread == [("bomb.png", 2), ("scan.pdf", 6), ("truncated.jpg", 1), ("zero_bytes.png", 3)]
    assert all(fault for _, fault, _ in data.unread)


# joining and splitting


def numbered(count: int) -> Labelled:
    pixels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    ink = np.arange(count, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    digits = (np.arange(count) % 10).astype(np.int8)
    return Labelled([str(number) for number in range(count)], pixels, ink, digits, [("lost", "why", 7)], [""] * count)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 200), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_the_parts_are_disjoint_complete_and_keep_what_belongs_together(count: int, share: float, seed: int) -> None:
    training, validation = split(numbered(count), share=share, seed=seed)
    assert sorted(training.names + validation.names, key=int) == [str(number) for number in range(count)]
    assert len(validation) == round(share * count)
    for part in (training, validation):
        numbers = [int(name) for name in part.names]
        assert part.pixels[:, 5, 5].tolist() == numbers
        assert part.ink[:, 1].tolist() == numbers
        assert labels(part) == [number % 10 for number in numbers]


def test_the_same_seed_splits_the_same_way_and_another_seed_another_way() -> None:
    first = split(numbered(100), share=0.1, seed=1)
    assert [part.names for part in split(numbered(100), share=0.1, seed=1)] == [part.names for part in first]
    assert split(numbered(100), share=0.1, seed=2)[1].names != first[1].names


def test_joined_sources_follow_one_another() -> None:
    both = join([numbered(3), numbered(2)])
    assert both.names == ["0", "1", "2", "0", "1"]
    assert both.pixels[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert len(both) == len(both.ink) == 5
    assert len(both.unread) == 2


# fingerprints


def test_the_fingerprint_of_a_folder_changes_with_a_byte_and_with_a_name_and_with_nothing_else(pictures: Path) -> None:
    first = fingerprint(str(pictures))
    assert list(first) == ["pictures"]
    (pictures / "4.png").touch()
    assert fingerprint(str(pictures)) == first
    (pictures / "4.png").rename(pictures / "44.png")
    renamed = fingerprint(str(pictures))
    (pictures / "44.png").write_bytes(b"x")
    assert len({first["pictures"], renamed["pictures"], fingerprint(str(pictures))["pictures"]}) == 3
