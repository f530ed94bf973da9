"""Digits in taught forms: whole in their box, another each time, and never among what is measured."""

from collections import deque

import numpy as np
import pytest

from batchdigits.training.datasets.simulator import forms, hands
from batchdigits.training.datasets.simulator.hands import Hand
from batchdigits.training.datasets.simulator.strokes import Pen, draw
from tests.training.datasets.simulator.conftest import training


@pytest.mark.parametrize("label", range(10))
def test_a_digit_fills_a_box_whose_longer_side_is_1(label: int) -> None:
    for seed in range(40):
        points = np.concatenate(forms.written(label, np.random.default_rng(seed)))
        assert points.min() == pytest.approx(0, abs=1e-6)
        assert points.max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("label", range(10))
def test_every_form_is_written_and_none_twice_alike(label: int) -> None:
    rng = np.random.default_rng(label)
    written = [forms.written(label, rng) for _ in range(300)]
    assert {len(strokes) for strokes in written} == {form.count(";") + 1 for form in forms.FORMS[label]}
    assert len({np.concatenate(strokes).tobytes() for strokes in written}) == len(written)


def test_a_corner_stays_sharp_where_a_curve_is_round(monkeypatch: pytest.MonkeyPatch) -> None:
    inked = []
    for form in ("0,0! 100,0! 100,100", "0,100 50,0 100,100 50,100"):
        monkeypatch.setattr(forms, "FORMS", ((form,),))
        strokes = forms.written(0, np.random.default_rng(0))
        inked.append(draw(strokes, 40, Pen(3.0), np.random.default_rng(0))[:8, -8:].max())
    assert inked[0] > 0.9
    assert inked[1] < 0.1


def test_only_what_is_trained_on_is_written_in_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        pytest.fail("a measured digit was written in one of our forms")

    trained, measured = training(), hands.sources("test")
    monkeypatch.setattr(forms, "written", refused)
    rng = np.random.default_rng(0)
    assert {Hand(0.08, Pen(1.0), measured, rng).digit(30)[1] for _ in range(200)} == set(range(10))
    with pytest.raises(pytest.fail.Exception):
        deque((Hand(0.08, Pen(1.0), trained, rng).digit(30) for _ in range(200)), maxlen=0)
