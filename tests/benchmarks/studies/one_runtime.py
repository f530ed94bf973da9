"""One runtime and one model in; how long it takes to import, to open and to predict, and its memory, out as JSON.

`runtimes.py` runs this in a process of its own for each measurement, so nothing but numpy and the runtime is imported.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 512
"""Images of one prediction, as the program has it."""

Predict = Callable[[Any], Any]
"""uint8[BATCH, 28, 28] -> float32[BATCH, K]."""


def onnx_runtime(model: str, threads: int) -> Predict:
    """Open an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def litert(model: str, threads: int) -> Predict:
    """Open a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=threads)
    taken = interpreter.get_input_details()[0]["index"]
    given = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(taken, (BATCH, 28, 28))
    interpreter.allocate_tensors()

    def predict(pixels: Any) -> Any:
        interpreter.set_tensor(taken, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(given)

    return predict


def tensorflow(model: str, threads: int) -> Predict:
    """Open a Keras file as the program does."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    network = keras.saving.load_model(model, compile=False)
    signature = [tf.TensorSpec((BATCH, 28, 28), tf.uint8)]
    function = tf.function(lambda pixels: network(pixels, training=False), signature, autograph=False)
    return lambda pixels: function(pixels).numpy()


ENGINES = {
    "onnxruntime": (onnx_runtime, "onnxruntime"),
    "ai-edge-litert": (litert, "ai_edge_litert.interpreter"),
    "tensorflow": (tensorflow, "tensorflow"),
}
"""By distribution: what opens a model, and the module that it imports."""


def main(engine: str, model: str, threads: int, pixels: str, logits: str) -> None:
    """Measure once.

    Args:
        engine: A key of `ENGINES`.
        model: The file of the model.
        threads: Of one prediction.
        pixels: A numpy file of uint8[N, 28, 28].
        logits: Where the logits go, float32[N, K].
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    images = np.load(pixels)
    padded = np.zeros((-(-len(images) // BATCH) * BATCH, 28, 28), np.uint8)
    padded[: len(images)] = images
    open_, module = ENGINES[engine]
    times = [time.perf_counter()]
    __import__(module)
    times.append(time.perf_counter())
    predict = open_(model, threads)
    predict(padded[:BATCH])
    times.append(time.perf_counter())
    busy = time.process_time()
    given = [predict(padded[start : start + BATCH]) for start in range(0, len(padded), BATCH)]
    busy = time.process_time() - busy
    times.append(time.perf_counter())
    np.save(logits, np.concatenate(given)[: len(images)])
    status = Path("/proc/self/status").read_text().splitlines()
    import_, opening, work = (after - before for before, after in zip(times, times[1:], strict=False))
    figures = {
        "import_seconds": import_,
        "open_seconds": opening,
        "microseconds": 1e6 * work / len(padded),
        "processor_microseconds": 1e6 * busy / len(padded),
        "peak_mb": next(1024e-6 * int(line.split()[1]) for line in status if line.startswith("VmHWM:")),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
