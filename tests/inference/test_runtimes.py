"""The predictor: both runtimes and the model of the package. What needs TensorFlow stands here, to load it once."""

import importlib.metadata
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from batchdigits.engine.local import Reading, on_this_machine
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.engine.worker import Drawing
from batchdigits.errors import BundleError, UsageError
from batchdigits.inference import bundle, runtimes
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.decisions import softmax
from batchdigits.inference.runtimes import (
    _DISTRIBUTIONS,
    _OPENERS,
    InkFinder,
    Predictor,
    _Opened,
    check_threads,
    quickest,
    start_tensorflow,
    version,
)
from batchdigits.inference.thresholds import Calibration
from batchdigits.preprocessing.looks import look, whole
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import KINDS, ImageFile
from batchdigits.settings import Arch, NormalisationSettings, PredictSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.urls import locate
from batchdigits.training import export
from batchdigits.training.architectures import OUTPUTS
from batchdigits.training.trainer import load_model
from tests.cli_runner import CHECKOUT, run
from tests.fake_model import bundle_in
from tests.sample_pages import digits, enlarged, on_page, shaded, write_png

BATCH = 256


@pytest.fixture(scope="module", params=list(Runtime))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return Runtime(request.param)


@pytest.fixture(scope="module")
def predictor(runtime: Runtime) -> Iterator[Predictor]:
    with Predictor(bundle.load(), batch_size=BATCH, runtime=runtime) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """600 images: digits, noise, and a blank one."""
    noise = np.random.default_rng(2).integers(0, 256, (299, 28, 28), np.uint8)
    return np.concatenate([digits(300), noise, np.zeros((1, 28, 28), np.uint8)])


@pytest.fixture(scope="module")
def logits(predictor: Predictor, pixels: np.ndarray) -> np.ndarray:
    return predictor(pixels)


def with_model(directory: Path, build: Any, teacher: Any = None) -> Bundle:  # noqa: ANN401
    """Make a bundle of what functions make with Keras."""
    start_tensorflow()
    import keras

    directory.mkdir()
    (directory / "finder.keras").write_bytes(b"no finder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras asks NumPy in a way of the past
        build(keras).save(directory / "model.keras")
        if teacher:
            teacher(keras).save(directory / "teacher.keras")
    return bundle.save(
        directory, normalisation=NormalisationSettings(), calibration=Calibration(1.0, gate=1.0), provenance={}
    )


def exported(made: Bundle) -> Bundle:
    """Export a bundle's model for the fast runtime."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export.export(load_model(made), made.directory, Network.READER)
    return bundle.save(
        made.directory, normalisation=made.normalisation, calibration=made.calibration, provenance=made.provenance
    )


def linear(keras: Any, kernel: np.ndarray) -> Any:  # noqa: ANN401
    """A network whose logits are some of the pixels."""
    layers = [keras.layers.Rescaling(1.0), keras.layers.Flatten(), keras.layers.Dense(kernel.shape[1], use_bias=False)]
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), *layers])
    model.set_weights([kernel.astype(np.float32)])
    return model


def of_two(directory: Path, outputs: int = 12) -> Bundle:
    """A bundle whose reader gives the first twelve pixels, and whose teacher gives them backwards."""
    reads, teaches = np.eye(784, 12), np.eye(784, 12)[:, ::-1][:, :outputs]
    return with_model(directory, lambda keras: linear(keras, reads), lambda keras: linear(keras, teaches))


def test_the_teacher_reads_too_what_the_reader_is_unsure_of_and_nothing_else(tmp_path: Path) -> None:
    rows = np.zeros((9, 12), np.uint8)
    rows[:, 2] = [0, 3, 5, 7, 9, 4, 0, 2, 255]  # of the likeliest: none, then e^n / (e^n + 9)
    rows[4, 10] = 9  # it may be no digit, which is no doubt about which one
    pages = np.zeros((9, 28, 28), np.uint8)
    pages[:, 0, :12] = rows
    pages[6, 27, 27] = 1  # ink, but nothing to go by
    unsure = [1, 6, 7]
    expected = rows.astype(np.float32)
    expected[unsure] = (expected[unsure] + expected[unsure, ::-1]) / 2
    with Predictor(of_two(tmp_path / "made"), batch_size=8) as predictor:
        np.testing.assert_array_equal(predictor(pages), expected)
        for row in range(9):
            np.testing.assert_array_equal(predictor(pages[row : row + 1]), expected[row : row + 1])


def test_a_teacher_with_other_outputs_is_refused(tmp_path: Path) -> None:
    made = of_two(tmp_path / "made", outputs=11)
    with pytest.raises(BundleError, match=r"made give 12 and 11 outputs, expected as many; use another"):
        Predictor(made, batch_size=8).__enter__()


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 512, 513, 600])
def test_any_number_of_images_gives_a_row_each(
    predictor: Predictor, pixels: np.ndarray, logits: np.ndarray, count: int
) -> None:
    found = predictor(pixels[:count])
    assert found.dtype == np.float32
    assert found.shape == (count, OUTPUTS[Arch.CNN])
    np.testing.assert_array_equal(found, logits[:count])


@pytest.mark.parametrize("cuts", [[1], [255], [256], [257], [100, 101, 400], list(range(40, 600, 40))])
def test_a_row_does_not_depend_on_how_the_images_are_split(
    predictor: Predictor, pixels: np.ndarray, logits: np.ndarray, cuts: list[int]
) -> None:
    parts = [predictor(part) for part in np.split(pixels, cuts)]
    assert np.concatenate(parts).tobytes() == logits.tobytes()


def test_a_row_does_not_depend_on_its_neighbours(predictor: Predictor, pixels: np.ndarray, logits: np.ndarray) -> None:
    order = np.random.default_rng(4).permutation(len(pixels))
    np.testing.assert_array_equal(predictor(pixels[order]), logits[order])


def test_a_second_predictor_gives_the_same_bits(runtime: Runtime, pixels: np.ndarray, logits: np.ndarray) -> None:
    with Predictor(bundle.load(), batch_size=BATCH, runtime=runtime) as again:
        assert again(pixels).tobytes() == logits.tobytes()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_another_batch_size_gives_nearly_the_same_logits(
    runtime: Runtime, pixels: np.ndarray, logits: np.ndarray, batch_size: int
) -> None:
    with Predictor(bundle.load(), batch_size=batch_size, runtime=runtime) as small:
        np.testing.assert_allclose(small(pixels[:20]), logits[:20], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("chosen", "expected"), [(Runtime.KERAS, [256] * 3), (Runtime.LITERT, [32] * 19)])
def test_a_large_batch_is_predicted_by_calls_of_one_size(
    pixels: np.ndarray, chosen: Runtime, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def opened(folder: Path, network: Network, batch_size: int, threads: int) -> _Opened:
        sure = np.float32([99, *[0] * 11])
        return lambda part: calls.append(len(part)) or np.tile(sure, (batch_size, 1)), 12  # type: ignore[func-returns-value]

    monkeypatch.setitem(_OPENERS, chosen, opened)
    with Predictor(bundle.load(), batch_size=1024, runtime=chosen) as predictor:
        assert predictor(pixels[:600]).shape == (600, 12)
    assert calls == expected


LEAN = """
import gc, sys
from batchdigits.inference import bundle
from batchdigits.inference.runtimes import Predictor

with Predictor(bundle.load(), batch_size=8):
    print(sorted({"matplotlib", "pandas", "pyarrow"} & set(sys.modules)), gc.isenabled())
import pandas
"""


def test_tensorflow_drags_in_nothing_that_nobody_needs_and_it_can_be_imported_later() -> None:
    found = run([sys.executable, "-c", LEAN], cwd=CHECKOUT)
    assert (found.code, found.stdout) == (0, "[] True\n"), found.stderr


def test_the_images_stay_as_they_are_and_need_not_lie_in_one_block(
    predictor: Predictor, pixels: np.ndarray, logits: np.ndarray
) -> None:
    copy = pixels.copy()
    copy.flags.writeable = False
    np.testing.assert_array_equal(predictor(copy[::-2]), logits[::-2])


def test_most_digits_are_read_right(logits: np.ndarray) -> None:
    """Whatever model ships: it gets the pixels as it wants them, 0 to 255 and bright ink on 0."""
    from batchdigits.training.datasets.shipped import mnist

    images, labels = mnist("train")
    rows = np.random.default_rng(1).permutation(len(images))[:300]
    np.testing.assert_array_equal(images[rows[0]], digits()[0])
    assert (logits[:300].argmax(1) == labels[rows]).mean() > 0.9


def test_more_threads_give_nearly_the_same_logits(runtime: Runtime, pixels: np.ndarray, logits: np.ndarray) -> None:
    with Predictor(bundle.load(), batch_size=BATCH, runtime=runtime, threads=2) as wide:
        np.testing.assert_allclose(wide(pixels[:20]), logits[:20], rtol=1e-4, atol=1e-3)


def test_both_runtimes_give_the_same_digit_and_probabilities_within_a_ten_thousandth(pixels: np.ndarray) -> None:
    found = []
    for runtime in Runtime:
        with Predictor(bundle.load(), batch_size=BATCH, runtime=runtime) as predictor:
            found.append(softmax(predictor(pixels), bundle.load().calibration.temperature))
    np.testing.assert_array_equal(found[0].argmax(1), found[1].argmax(1))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_litert_has_the_threads_that_it_is_given(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import interpreter

    given: list[dict[str, int]] = []

    class Interpreter(interpreter.Interpreter):  # type: ignore[misc]
        def __init__(self, path: str, **options: int) -> None:
            given.append(options)
            super().__init__(path, **options)

    monkeypatch.setattr(interpreter, "Interpreter", Interpreter)
    with Predictor(bundle.load(), batch_size=BATCH, runtime=Runtime.LITERT, threads=threads):
        assert given
    assert {options["num_threads"] for options in given} == {threads}


def test_the_threads_of_tensorflow_do_not_hang_on_the_machine() -> None:
    tensorflow = start_tensorflow()

    assert tensorflow.config.threading.get_intra_op_parallelism_threads() == 1
    assert tensorflow.config.threading.get_inter_op_parallelism_threads() == 1


def test_a_gpu_that_tensorflow_sees_gets_memory_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = start_tensorflow()
    grown = []
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(
        tensorflow.config.experimental, "set_memory_growth", lambda gpu, growth: grown.append((gpu, growth))
    )
    monkeypatch.setattr(tensorflow.config, "threading", mock.Mock())  # it runs already, and would refuse
    start_tensorflow()
    assert grown == [("GPU:0", True), ("GPU:1", True)]


@pytest.mark.parametrize("exported", [b"", b"no model", b"\x1c\0\0\0TFL3" + bytes(200)])
def test_a_file_that_is_no_model_of_the_fast_runtime_is_refused(tmp_path: Path, exported: bytes) -> None:
    broken = bundle_in(tmp_path / "bundle", exported=exported)
    with pytest.raises(BundleError, match="LiteRT cannot open") as caught:
        Predictor(broken, batch_size=2, runtime=Runtime.LITERT).__enter__()
    assert str(broken.directory) in str(caught.value)


def test_a_bundle_without_a_model_for_the_fast_runtime_says_what_to_do(tmp_path: Path) -> None:
    made = bundle_in(tmp_path / "bundle")
    with pytest.raises(BundleError, match="holds no model for litert; train it anew, or use --runtime keras"):
        Predictor(made, batch_size=2, runtime=Runtime.LITERT).__enter__()


def test_a_model_of_the_fast_runtime_that_does_not_fit_the_digits_is_refused(tmp_path: Path) -> None:
    def build(keras: Any) -> Any:  # noqa: ANN401
        layers = keras.layers
        return keras.Sequential([layers.Input((28, 28), dtype="uint8"), layers.Flatten(), layers.Dense(9)])

    with pytest.raises(BundleError, match=r"gives \(9,\) for an image"):
        Predictor(exported(with_model(tmp_path / "bundle", build)), batch_size=2, runtime=Runtime.LITERT).__enter__()


def test_a_runtime_that_is_not_installed_says_which_extra_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    remedy = r"install batchdigits\[litert\], or use --runtime keras"
    with pytest.raises(UsageError, match=remedy):
        Predictor(bundle.load(), batch_size=2, runtime=Runtime.LITERT).__enter__()
    monkeypatch.setitem(_DISTRIBUTIONS, Runtime.LITERT, "ai-edge-litert-of-another-name")
    with pytest.raises(UsageError, match=remedy):
        version(Runtime.LITERT)


@pytest.mark.parametrize("runtime", list(Runtime))
def test_the_version_of_a_runtime_names_its_package(runtime: Runtime) -> None:
    name, number = version(runtime).split(" ")
    assert name == {Runtime.KERAS: "tensorflow", Runtime.LITERT: "ai-edge-litert"}[runtime]
    assert number == importlib.metadata.version(name)


@pytest.mark.parametrize("weights", [b"", b"no model", b"PK\x03\x04 no archive"])
def test_a_file_that_is_no_keras_model_is_refused(tmp_path: Path, weights: bytes) -> None:
    broken = bundle_in(tmp_path / "bundle", weights=weights)
    with pytest.raises(BundleError) as caught, Predictor(broken, batch_size=2):
        pass
    assert str(broken.directory) in str(caught.value)


def test_a_model_that_would_run_code_is_refused(tmp_path: Path) -> None:
    def build(keras: Any) -> Any:  # noqa: ANN401
        layers = keras.layers
        shape = [layers.Input((28, 28)), layers.Lambda(lambda x: x * 2.0, output_shape=(28, 28)), layers.Flatten()]
        return keras.Sequential([*shape, layers.Dense(10)])

    made = with_model(tmp_path / "bundle", build)
    with pytest.raises(BundleError), Predictor(made, batch_size=2):
        pass


@pytest.mark.parametrize(("shape", "outputs"), [((28, 28), 9), ((28, 28), 1), ((32, 32), 10), ((28, 28, 3), 10)])
def test_a_model_that_does_not_fit_the_pixels_or_the_digits_is_refused(
    tmp_path: Path, shape: tuple[int, ...], outputs: int
) -> None:
    def build(keras: Any) -> Any:  # noqa: ANN401
        layers = keras.layers
        return keras.Sequential([layers.Input(shape), layers.Flatten(), layers.Dense(outputs)])

    made = with_model(tmp_path / "bundle", build)
    with pytest.raises(BundleError), Predictor(made, batch_size=2):
        pass


def test_a_model_with_more_outputs_than_digits_gives_them_all(tmp_path: Path) -> None:
    def build(keras: Any) -> Any:  # noqa: ANN401
        layers = keras.layers
        return keras.Sequential([layers.Input((28, 28)), layers.Flatten(), layers.Dense(12)])

    with Predictor(with_model(tmp_path / "bundle", build), batch_size=2) as wide:
        assert wide(digits()[:3]).shape == (3, 12)
        assert wide(digits()[:0]).shape == (0, 12)


# ---- the ink finder ----------------------------------------------------------------------------------------------


def pages(count: int = 40) -> list[np.ndarray]:
    """Digits on paper of many sizes, some in a shadow, some light on dark, and grainy paper."""
    rng = np.random.default_rng(8)
    made = []
    for number, digit in enumerate(digits(count)):
        height, width = rng.integers(36, 90, 2)
        page = enlarged(on_page(digit, height, width), 1 + number % 6)
        page = shaded(page, darkest=0.6, angle=number) if number % 3 == 1 else page
        made.append(255 - page if number % 4 == 3 else page)
    return [*made, rng.normal(190, 9, (90, 130)).clip(0, 255).astype(np.uint8)]


@pytest.fixture(scope="module")
def looks() -> np.ndarray:
    noise = np.random.default_rng(2).integers(0, 256, (5, 64, 64, 3), np.uint8)
    return np.concatenate([np.stack([look(page, whole(page)).cells for page in pages()]), noise])


@pytest.fixture(scope="module")
def finder(runtime: Runtime) -> Iterator[InkFinder]:
    with InkFinder(bundle.PACKAGED, runtime=runtime) as finder:
        yield finder


@pytest.mark.parametrize("count", [1, 7, 8, 9, 46])
def test_any_number_of_looks_gives_maps_and_kinds_that_do_not_depend_on_it(
    finder: InkFinder, looks: np.ndarray, count: int
) -> None:
    maps, kinds = finder(looks[:count])
    assert (maps.shape, maps.dtype) == ((count, 64, 64), np.uint8)
    assert (kinds.shape, kinds.dtype) == ((count, len(KINDS)), np.float32)
    all_maps, all_kinds = finder(looks)
    np.testing.assert_array_equal(maps, all_maps[:count])
    np.testing.assert_array_equal(kinds, all_kinds[:count])


def test_a_look_does_not_depend_on_its_neighbours(finder: InkFinder, looks: np.ndarray) -> None:
    order = np.random.default_rng(4).permutation(len(looks))
    (maps, kinds), (shuffled, other_kinds) = finder(looks), finder(looks[order])
    np.testing.assert_array_equal(shuffled, maps[order])
    np.testing.assert_array_equal(other_kinds, kinds[order])


def test_what_is_rounded_is_the_share_that_the_network_gives(finder: InkFinder, looks: np.ndarray) -> None:
    ink, kinds = finder.raw(looks[:3])
    assert ink.shape == (3, 64 * 64)
    assert (ink >= 0).all()
    assert (ink <= 1).all()
    maps, same_kinds = finder(looks[:3])
    np.testing.assert_allclose(maps.reshape(3, -1) / 255, ink, atol=0.5001 / 255)
    np.testing.assert_array_equal(same_kinds, kinds)


def test_both_runtimes_find_the_same_ink_and_kinds_within_a_ten_thousandth(looks: np.ndarray) -> None:
    found = []
    for runtime in Runtime:
        with InkFinder(bundle.PACKAGED, runtime=runtime) as finder:
            found.append(finder.raw(looks))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(softmax(found[0][1]), softmax(found[1][1]), rtol=0, atol=1e-4)


def test_both_runtimes_read_the_same_digits_off_pages() -> None:
    model, found = bundle.load(), []
    for runtime in Runtime:
        with (
            InkFinder(model.directory, runtime=runtime) as finder,
            Predictor(model, batch_size=BATCH, runtime=runtime) as predictor,
        ):
            seen = normalise(pages(), finder, model.normalisation)
            found.append((seen, softmax(predictor(seen.pixels), model.calibration.temperature)))
    (slow, said), (fast, said_fast) = found
    assert np.abs(slow.pixels.astype(int) - fast.pixels).max() <= 3  # where a share lies between two grey levels
    np.testing.assert_allclose(slow.ink, fast.ink, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(said[:-1].argmax(1), said_fast[:-1].argmax(1))  # on bare paper there is no digit


def test_looks_are_found_eight_at_a_time(looks: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def opened(folder: Path, network: Network, batch_size: int, threads: int) -> _Opened:
        assert (folder, network) == (bundle.PACKAGED, Network.FINDER)
        return lambda part: calls.append(len(part)) or np.zeros((batch_size, 4100), np.float32), 4100  # type: ignore[func-returns-value]

    monkeypatch.setitem(_OPENERS, Runtime.KERAS, opened)
    with InkFinder(bundle.PACKAGED) as finder:
        assert finder(looks[:19])[0].shape == (19, 64, 64)
    assert calls == [8, 8, 8]


@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_file_that_is_no_ink_finder_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    broken = bundle_in(tmp_path / "bundle", exported=b"no model", exported_finder=b"no finder")
    with pytest.raises(BundleError, match=r"cannot (load|open) the model of the bundle") as caught:
        InkFinder(broken.directory, runtime=runtime).__enter__()
    assert str(broken.directory) in str(caught.value)


def test_a_network_in_the_place_of_the_other_is_refused_by_both_runtimes(tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for runtime in Runtime:
        content = (bundle.PACKAGED / Network.READER.file(runtime)).read_bytes()
        (swapped / Network.FINDER.file(runtime)).write_bytes(content)
        expected = (
            r"The finder of the bundle .* takes \(28, 28\) and gives \(12,\) .*, expected \(64, 64, 3\) and \(4100,\)"
        )
        with pytest.raises(BundleError, match=expected):
            InkFinder(swapped, runtime=runtime).__enter__()


def test_an_ink_finder_without_a_file_for_the_fast_runtime_says_what_to_do(tmp_path: Path) -> None:
    made = bundle_in(tmp_path / "bundle", exported=b"only the reader's")
    with pytest.raises(BundleError, match="holds no model for litert; train it anew, or use --runtime keras"):
        InkFinder(made.directory, runtime=Runtime.LITERT).__enter__()


def test_litert_is_chosen_where_it_is_installed_and_there_is_a_file_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quickest(bundle.PACKAGED) is Runtime.LITERT
    assert quickest(bundle_in(tmp_path / "bundle", exported=b"only the reader's").directory) is Runtime.KERAS
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert quickest(bundle.PACKAGED) is Runtime.KERAS


@pytest.mark.parametrize("runtime", list(Runtime))
def test_worker_processes_see_what_this_process_sees(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT is in each of them; TensorFlow runs in a process of its own, and they ask for what it finds."""
    some = pages(12)
    for number, page in enumerate(some):
        write_png(tmp_path / f"{number:02}.png", page)
    files = [item for item in discover([locate(str(tmp_path))], outputs=[]) if isinstance(item, ImageFile)]
    model = bundle.load()
    reading = Reading(
        model,
        PredictSettings(sources=(), runtime=runtime, workers=2),
        Drawing(1, 0, False),
        StageTimer(),
        Stop(),
        {},
        False,
    )
    with on_this_machine(reading) as read:
        (batch,) = read(sorted(files, key=lambda file: file.name))
    with (
        SharedFinder(bundle.PACKAGED, runtime) as finder,
        Predictor(model, batch_size=256, runtime=runtime) as predictor,
    ):
        alone = normalise(some, finder)
        np.testing.assert_array_equal(batch.pages["ink"], alone.ink)
        np.testing.assert_array_equal(batch.pages["logits"], predictor(alone.pixels))


def test_the_best_runtime_is_litert_where_it_is_installed_and_the_bundle_was_proven_and_no_gpu_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_DRIVERS", ())
    proven = bundle_in(tmp_path / "proven", exported=b"fast", exported_finder=b"fast").directory
    half = bundle_in(tmp_path / "half", exported=b"fast").directory
    assert runtimes.best(bundle.PACKAGED) is runtimes.best(proven) is Runtime.LITERT
    assert runtimes.best(half) is runtimes.best(tmp_path / "nowhere") is Runtime.KERAS
    monkeypatch.setattr(runtimes, "_sees_gpu", lambda: True)
    assert runtimes.best(proven) is Runtime.KERAS
    monkeypatch.undo()
    monkeypatch.setattr(runtimes, "find_spec", lambda _: None)
    assert runtimes.best(proven) is Runtime.KERAS


def test_tensorflow_is_asked_for_a_gpu_only_where_a_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started() -> object:
        return SimpleNamespace(config=SimpleNamespace(list_physical_devices=lambda kind: [kind]))

    monkeypatch.setattr(runtimes, "start_tensorflow", started)
    monkeypatch.setattr(runtimes, "_DRIVERS", (tmp_path / "driver",))
    assert not runtimes._sees_gpu()
    (tmp_path / "driver").touch()
    assert runtimes._sees_gpu()


def test_more_threads_than_the_system_gives_are_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(begun) == 20:
            message = "can't start new thread"
            raise RuntimeError(message)
        begun.append(thread)
        native(thread)

    native = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    check_threads(1)
    with pytest.raises(UsageError, match="no more than 20 more threads, and --threads 50 takes up to 166"):
        check_threads(50)
    assert not any(thread.is_alive() for thread in begun)
