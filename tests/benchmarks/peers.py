"""A folder in, seconds out: how others predict it, without a report; in a process with TensorFlow's own threads.

`python -m tests.benchmarks.peers FOLDER IMAGES` is the first of them as a script that is run from the shell.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import typer

from batchdigits.records import SIDE
from tests.benchmarks.forward import BATCH, keras_convnet
from tests.benchmarks.rounds import Pass, timed

DATASET = "image_dataset_from_directory + model.predict"
LOOP = "imread + resize + model.predict, one at a time"


def by_dataset(folder: Path, images: int) -> Pass:
    """Predict a folder the way Keras's documentation does."""
    import keras

    model = keras_convnet()

    def work() -> None:
        dataset = keras.utils.image_dataset_from_directory(
            str(folder),
            labels=None,
            color_mode="grayscale",
            image_size=(SIDE, SIDE),
            batch_size=BATCH,
            shuffle=False,
            verbose=False,
        )
        probabilities = model.predict(dataset, verbose=0)
        assert len(probabilities) == images

    return timed(work)()


def by_loop(files: Sequence[str], images: int) -> Pass:
    """Predict files one by one, as the first script that one writes does."""
    model = keras_convnet()

    def work() -> None:
        predicted = 0
        for file in files:
            _, pages = cv2.imreadmulti(file, flags=cv2.IMREAD_GRAYSCALE)
            for page in pages:
                pixels = cv2.resize(page, (SIDE, SIDE)).astype(np.float32)
                model.predict(pixels[None, :, :, None], verbose=0)
                predicted += 1
        assert predicted == images

    return timed(work)()


def main(folder: Path, images: int) -> None:
    """Predict a folder once."""
    by_dataset(folder, images)


if __name__ == "__main__":
    typer.run(main)
