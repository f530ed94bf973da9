"""Write digits in the forms that schools and countries teach, of which the recorded hands have few.

A form is a row of points that a pen passes: a 1 with a long upstroke and a foot, a 7 with a hook and a bar, a looped 2,
the square digits of display panels. They are written here; no data set is behind them.
"""

import numpy as np
from numpy.typing import NDArray

from batchdigits.training.datasets.simulator.strokes import Stroke

_JITTER = 0.03  # σ of each point's place, of the digit's height
_STEPS = 6  # points drawn from one point of a form to the next

FORMS = (
    (  # 0: plain, with a stroke through it, with a curl at its top, square
        "30,0 5,20 0,55 12,90 32,100 55,85 62,50 52,12 30,0",
        "30,0 5,20 0,55 12,90 32,100 55,85 62,50 52,12 30,0; 68,2 -6,98",
        "45,16 20,0 0,40 10,90 40,100 62,55 50,12 30,14 36,30",
        "0,0! 60,0! 60,100! 0,100! 0,0!",
    ),
    (  # 1: a stroke; upstrokes from short to long; with a foot; with a bow
        "10,0 0,100",
        "0,25! 30,0! 30,100!",
        "0,50! 45,0! 40,100!",
        "0,75! 50,0! 36,100!",
        "0,60! 70,0! 30,100!",
        "0,30! 35,0! 35,100!; 5,100 65,99",
        "0,55! 40,0! 38,100!; 10,100 70,97",
        "0,48 22,34 42,0! 37,50 34,100",
    ),
    (  # 2: with a straight, a looped, a waved foot; as a Z; square
        "0,25 15,5 40,0 60,14 58,38 30,70 0,100! 70,98!",
        "0,20 25,0 55,10 50,40 20,82 0,95 0,80 20,82 45,99 78,88",
        "0,30 20,2 55,15 45,50 0,97! 20,88 50,100 80,90",
        "0,4! 60,0! 0,100! 65,100!",
        "0,0! 60,0! 60,50! 0,50! 0,100! 60,100!",
    ),
    (  # 3: round, with a flat top, with a loop in its middle, square
        "0,10 30,0 55,16 46,40 20,47! 50,56 62,78 40,100 0,92",
        "0,0! 60,0! 25,40! 55,50 60,80 30,100 0,90",
        "0,10 30,0 55,12 45,38 20,50 12,44 25,42 50,55 60,80 35,100 0,90",
        "0,0! 60,0! 60,100! 0,100!; 10,50 60,50",
    ),
    (  # 4: open, with a bow, closed, with its stem apart, square
        "12,0! 0,60! 70,58!; 50,20 45,100",
        "0,0 2,35 20,50 52,42; 55,0 48,100",
        "50,100! 50,0! 0,65! 75,65!",
        "35,0! 0,62! 70,55!; 45,38 38,100",
        "0,0! 0,50! 60,50!; 60,0 60,100",
    ),
    (  # 5: of one stroke, with its hat apart, as an S, square
        "60,0! 15,3! 8,42! 40,38 62,65 40,98 0,92",
        "12,5! 8,42! 40,36 60,65 40,98 0,95; 12,2 66,0",
        "60,6 30,0 10,20 30,44 55,65 40,96 0,94",
        "60,0! 0,0! 0,50! 60,50! 60,100! 0,100!",
    ),
    (  # 6: with a small and with a large loop, with a straight back, with a bent top, square
        "50,0 15,35 0,70 15,97 45,90 50,68 30,58 3,75",
        "45,0 10,30 0,65 20,100 60,95 75,65 50,40 5,55",
        "10,0 0,60 10,97 40,95 50,70 25,60 2,75",
        "65,12 45,0 15,15 0,60 20,100 55,90 60,65 35,50 2,65",
        "60,0! 0,0! 0,100! 60,100! 60,50! 0,50!",
    ),
    (  # 7: plain, bent; with a hook, a wave, a loop before its roof; each with and without a bar, high or low; square
        "0,3! 60,0! 20,100!",
        "0,5! 60,0! 32,45 22,100",
        "0,3! 60,0! 20,100!; 10,50 62,47",
        "0,20! 2,2! 60,0! 25,100!; 12,52 60,50",
        "0,20 10,3 32,10 62,0! 36,50 20,100; 10,55 60,50",
        "0,20 10,3 32,10 62,0! 36,50 25,100; 0,78 62,72",
        "12,6 0,20 6,32 25,24 65,0! 40,50 28,100; 2,76 65,72",
        "12,6 0,20 6,32 25,24 65,0! 40,50 28,100; 15,56 65,52",
        "0,0! 60,0! 60,100!",
    ),
    (  # 8: of one stroke, of two rings, open at its top, square
        "50,10 25,0 5,20 30,45 55,70 30,100 2,80 25,50 50,25 46,6",
        "30,0 8,20 28,44 50,22 30,0; 28,44 0,72 28,100 56,72 28,44",
        "52,2 15,14 20,40 50,65 40,97 8,92 10,65 42,35 62,0",
        "0,0! 60,0! 60,100! 0,100! 0,0!; 0,50 60,50",
    ),
    (  # 9: with a straight, a bent, a hooked tail; square
        "50,15 25,0 2,20 15,45 42,38 52,12 53,0! 48,100!",
        "50,15 25,0 2,20 15,45 42,38 52,12 50,55 22,100",
        "50,15 25,0 2,20 15,45 42,38 52,12 54,50 45,92 20,100 0,86",
        "60,50! 0,50! 0,0! 60,0! 60,100! 0,100!",
    ),
)
"""Of each digit, its forms: strokes, and in each the points: x to the right, y down, hundredths of the digit's height.

A pen passes a point in a curve, or, where it is marked, in a sharp turn.
"""


def written(label: int, rng: np.random.Generator) -> list[Stroke]:
    """Write a digit in one of its forms: strokes, float32[P, 2] each, in a box from 0 whose longer side is 1."""
    form = _parsed(FORMS[label][int(rng.integers(len(FORMS[label])))])
    moved = {point: np.array(point) + rng.normal(0, _JITTER, 2) for stroke in form for point in stroke}
    strokes = [_curve(np.array([moved[point] for point in stroke])) for stroke in form]
    low = np.min([stroke.min(0) for stroke in strokes], axis=0)
    scale = float((np.max([stroke.max(0) for stroke in strokes], axis=0) - low).max())
    return [((stroke - low) / scale).astype(np.float32) for stroke in strokes]


def _parsed(form: str) -> list[list[tuple[float, float]]]:
    """Read a form: of each stroke its points; one that is passed in a sharp turn is there twice."""
    strokes = []
    for stroke in form.split(";"):
        points = []
        for word in stroke.split():
            across, down = word.rstrip("!").split(",")
            points += [(int(across) / 100, int(down) / 100)] * (1 + word.endswith("!"))
        strokes.append(points)
    return strokes


def _curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pass points in a curve: float64[P, 2] to float64[6 (P - 1) + 1, 2].

    Source: Catmull, Rom, «A class of local interpolating splines», Computer Aided Geometric Design, 1974.
    """
    before, after = np.concatenate([points[:1], points[:-1]]), np.concatenate([points[1:], points[-1:]])
    slopes = (after - before) / 2
    at = np.linspace(0, 1, _STEPS, endpoint=False)[:, None, None]
    start, end = points[:-1], points[1:]
    curve = (
        (2 * at**3 - 3 * at**2 + 1) * start
        + (at**3 - 2 * at**2 + at) * slopes[:-1]
        + (3 * at**2 - 2 * at**3) * end
        + (at**3 - at**2) * slopes[1:]
    )
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])
