"""Prediction beside decoding and recording: in order, bounded, loaded once and early, ended without loss."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from batchdigits.engine import prediction as overlap
from batchdigits.engine.prediction import BackgroundPredictor, predict_ahead
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.errors import BatchDigitsError, BundleError, Terminated
from batchdigits.records import INK_MEASURES, Batch, ImageFile, SeenPage
from tests.fake_model import logits_of

LATE = 10.0  # seconds after which a test gives up


class Model:
    """A predictor that tells what it did, in which thread, and waits where it is told to."""

    def __init__(self, *, load: Callable[[], object] = bool, before: Callable[[], object] = bool) -> None:
        self.log: list[str] = []
        self.threads: set[str] = set()
        self._load, self._before = load, before

    def __enter__(self) -> "Model":
        self._load()
        self.log.append("loaded")
        self.threads.add(threading.current_thread().name)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("closed")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self._before()
        self.log.append(f"predicted {len(pixels)}")
        self.threads.add(threading.current_thread().name)
        return logits_of(pixels)


def batch(number: int, pages: int = 4, *, side: int = 28) -> Batch:
    file = ImageFile(f"/in/{number}.png", f"{number}.png", 1, 1, ".png", number)
    seen = [SeenPage(file, page, 28, 28, f"{number}", pages) for page in range(1, pages + 1)]
    pixels = np.random.default_rng(number).integers(0, 256, (pages, 28, 28), np.uint8)
    ink = np.zeros((pages, len(INK_MEASURES)), np.float32)
    return Batch(seen, pixels, ink, [], [], [np.zeros((side, side), np.uint8)] * pages)


def all_fresh(whole: Batch) -> tuple[Batch, np.ndarray]:
    return whole, np.ones(len(whole.pages), np.bool_)


def count(whole: Batch, is_new: np.ndarray, logits: np.ndarray) -> tuple[str, int, int]:
    """What these tests draw from a batch."""
    return whole.pages[0].sha256, int(is_new.sum()), len(logits)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LATE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.001)


@pytest.fixture
def timer() -> StageTimer:
    return StageTimer()


def found(model: Model, batches: Any, judge: Any = all_fresh, stop: Stop | None = None) -> list[Any]:  # noqa: ANN401
    with BackgroundPredictor(model, StageTimer()) as prediction:
        return list(predict_ahead(batches, prediction, judge=judge, draw=count, stop=stop or Stop()))


def test_every_batch_comes_once_in_order_with_its_own_logits() -> None:
    batches = [batch(number, pages=1 + number % 3) for number in range(20)]
    results = found(Model(), batches)
    assert [result.batch for result in results] == batches
    for result in results:
        np.testing.assert_array_equal(result.logits, logits_of(result.batch.pixels))
        assert result.drawn == (result.batch.pages[0].sha256, len(result.batch.pages), len(result.batch.pages))


def test_the_model_is_loaded_once_in_a_thread_of_its_own_and_let_go_at_the_end() -> None:
    model = Model()
    found(model, [batch(1), batch(2)])
    assert model.log == ["loaded", "predicted 4", "predicted 4", "closed"]
    (thread,) = model.threads
    assert thread.startswith("predict")
    assert not [alive for alive in threading.enumerate() if alive.name.startswith("predict")]


def test_only_fresh_pages_are_predicted() -> None:
    model = Model()
    (result,) = found(model, [batch(1)], judge=lambda whole: (whole, np.array([True, False, False, True])))
    assert model.log == ["loaded", "predicted 2", "closed"]
    np.testing.assert_array_equal(result.logits, logits_of(result.batch.pixels[[0, 3]]))
    assert result.drawn == ("1", 2, 2)


def test_without_a_fresh_page_no_model_is_loaded() -> None:
    model = Model()
    results = found(model, [batch(1), batch(2)], judge=lambda whole: (whole, np.zeros(4, np.bool_)))
    assert model.log == []
    assert [(result.logits.shape, result.drawn) for result in results] == [((0, 10), None)] * 2


def test_what_is_judged_is_what_comes() -> None:
    other = batch(9)
    (result,) = found(Model(), [batch(1)], judge=lambda _: all_fresh(other))
    assert result.batch is other


def test_the_model_is_loaded_from_the_start_on_while_nothing_is_asked(timer: StageTimer) -> None:
    model = Model()
    with BackgroundPredictor(model, timer) as prediction:
        assert not prediction.is_loaded
        prediction.start()
        prediction.start()
        wait_until(lambda: prediction.is_loaded)
    assert model.log == ["loaded", "closed"]
    assert list(timer.seconds) == ["load model"]


def test_batches_are_taken_while_the_model_is_loaded_as_long_as_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_MOST_BYTES", 5 * batch(0).nbytes)
    taken: list[int] = []
    go = threading.Event()

    def source() -> Iterator[Batch]:
        for number in range(30):
            taken.append(number)
            yield batch(number)

    model = Model(load=lambda: go.wait(LATE))
    with BackgroundPredictor(model, StageTimer()) as prediction:
        results = predict_ahead(source(), prediction, judge=all_fresh, draw=count, stop=Stop())
        first: list[Any] = []
        taker = threading.Thread(target=lambda: first.append(next(results)))
        taker.start()
        wait_until(lambda: len(taken) == 6)
        time.sleep(0.05)
        assert len(taken) == 6  # five fit, and the sixth shows that they do
        assert first == []
        go.set()
        taker.join(LATE)
        assert len(first) + len(list(results)) == 30


def test_a_loaded_model_has_few_batches_waiting_for_it() -> None:
    taken: list[int] = []
    go = threading.Semaphore(0)

    def source() -> Iterator[Batch]:
        for number in range(30):
            taken.append(number)
            yield batch(number)

    model = Model(before=lambda: go.acquire(timeout=LATE))
    with BackgroundPredictor(model, StageTimer()) as prediction:
        prediction.start()
        wait_until(lambda: prediction.is_loaded)
        results = predict_ahead(source(), prediction, judge=all_fresh, draw=count, stop=Stop())
        go.release()
        next(results)
        assert len(taken) <= 5  # three wait, one is at work, and one is asked for
        go.release(30)
        list(results)
    assert len(taken) == 30


def test_recording_goes_on_while_the_next_batch_is_predicted() -> None:
    """Both wait for each other, so that neither would come to its end alone."""
    meet = threading.Barrier(2, timeout=LATE)
    calls: list[int] = []

    def second_call_meets() -> None:
        calls.append(1)
        if len(calls) == 2:
            meet.wait()

    model = Model(before=second_call_meets)
    with BackgroundPredictor(model, StageTimer()) as prediction:
        results = predict_ahead(iter([batch(1), batch(2)]), prediction, judge=all_fresh, draw=count, stop=Stop())
        next(results)
        meet.wait()  # here the first batch is recorded
        next(results)


def test_where_the_decoders_end_the_run_what_was_begun_comes_first() -> None:
    def source() -> Iterator[Batch]:
        yield batch(1)
        yield batch(2)
        message = "a decoder died"
        raise BatchDigitsError(message)

    with BackgroundPredictor(Model(load=lambda: time.sleep(0.05)), StageTimer()) as prediction:
        results = predict_ahead(source(), prediction, judge=all_fresh, draw=count, stop=Stop())
        assert [next(results).batch.pages[0].sha256 for _ in range(2)] == ["1", "2"]
        with pytest.raises(BatchDigitsError, match="a decoder died"):
            next(results)


def test_after_a_signal_no_batch_is_taken_and_those_that_were_begun_come() -> None:
    taken: list[int] = []
    stop = Stop()

    def source() -> Iterator[Batch]:
        for number in range(10):
            taken.append(number)
            if number == 2:
                stop._asked = Terminated("ended")  # as a signal that waits for the batches in hand
            yield batch(number)

    model = Model(load=lambda: time.sleep(0.05))
    with BackgroundPredictor(model, StageTimer()) as prediction:
        results = predict_ahead(source(), prediction, judge=all_fresh, draw=count, stop=stop)
        assert [next(results).batch.pages[0].sha256 for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(Terminated):
            next(results)
    assert taken == [0, 1, 2]


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_error() -> None:
    def fail() -> None:
        message = "no such model"
        raise BundleError(message)

    model = Model(load=fail)
    with pytest.raises(BundleError, match="no such model"):
        found(model, [batch(number) for number in range(10)])
    assert model.log == []


def test_the_seconds_of_loading_and_of_predicting_are_counted(timer: StageTimer) -> None:
    model = Model(load=lambda: time.sleep(0.02), before=lambda: time.sleep(0.01))
    with BackgroundPredictor(model, timer) as prediction:
        list(predict_ahead([batch(1), batch(2)], prediction, judge=all_fresh, draw=count, stop=Stop()))
    assert timer.seconds["load model"] >= 0.02
    assert timer.seconds["predict"] >= 0.02
    assert list(timer.seconds) == ["load model", "predict", "decide"]


def test_who_leaves_does_not_wait_for_a_model_that_is_still_being_loaded() -> None:
    go = threading.Event()
    model = Model(load=lambda: go.wait(LATE))
    started = time.monotonic()
    with BackgroundPredictor(model, StageTimer()) as prediction:
        prediction.start()
    assert time.monotonic() - started < LATE / 2
    go.set()
    wait_until(lambda: model.log == ["loaded"])
