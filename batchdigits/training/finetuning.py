"""Let a bundle go on learning from what people answered, and decide how much of that it keeps.

What was learnt before is kept in three ways: answers are mixed with the data that the bundle was trained on, its own
validation part stays apart, and of the new weights only so much is taken that this part is read as well as before.
"""

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.audit import HOLDOUT_SHARE, in_sample
from batchdigits.inference.bundle import Bundle
from batchdigits.records import DIGITS
from batchdigits.settings import Arch, NormalisationSettings, TrainSettings
from batchdigits.training.datasets import labelled
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.shipped import MNIST

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

MOST_LOST = 0.002
"""Share of MNIST's validation part, 0 to 1, that may be read wrongly beyond what the base reads wrongly."""

_WEIGHT = 0.1  # new images are repeated until they are that share of the others, or so often
_MOST_REPEATED = 50
_BLENDS = (1.0, 0.75, 0.5, 0.25)
_AT_A_TIME = 500


class FineTuningData(NamedTuple):
    """What a bundle goes on learning from."""

    training: Labelled
    """What it was trained on, and the new data, repeated so that they have weight."""
    validation: Labelled
    """The base's own validation part."""
    holdout: Labelled
    """New data that only measure; may be empty."""


def inherited(settings: TrainSettings, base: Bundle) -> TrainSettings:
    """Take from the base what may not differ from it: the network, and the split of its data.

    Raises:
        UsageError: The base would be overwritten, or was trained behind another normalisation.
    """
    name = escaped(str(base.directory))
    if base.directory.resolve() == settings.output.resolve():
        message = f"The bundle {name} would be overwritten by what comes of it; choose another --output."
        raise UsageError(message)
    if base.normalisation != NormalisationSettings():
        message = f"The bundle {name} was trained behind another normalisation; train it anew."
        raise UsageError(message)
    recipe = _recipe(base)
    default = TrainSettings(settings.output)
    ours = {"arch": Arch(recipe["arch"]), "seed": recipe["seed"], "validation_share": recipe["validation_share"]}
    for option, value in (ours | {"teacher": None}).items():
        if getattr(settings, option) not in (getattr(default, option), value):
            flag = option.replace("_", "-")
            message = f"With --from, --{flag} is that of the bundle {name}: {value}; leave it out."
            raise UsageError(message)
    return replace(settings, **ours)


def own_data(base: Bundle, network: SharedFinder) -> tuple[Labelled, Labelled]:
    """Read what a bundle was trained on, and the validation part that it never saw.

    Raises:
        UsageError: The bundle does not say.
        StorageError: The data do not exist any more.
    """
    recipe = _recipe(base)
    data = labelled.inked(_read(recipe["data"], base, network))
    return labelled.split(data, share=recipe["validation_share"], seed=recipe["seed"])


def fine_tuning_data(settings: TrainSettings, base: Bundle, network: SharedFinder) -> FineTuningData:
    """Read what the base was trained on and the new data, and part both.

    Raises:
        UsageError: The new data have wrong labels.
        StorageError: Data do not exist.
    """
    old, validation = own_data(base, network)
    new = [source for source in settings.data if source not in _recipe(base)["data"]]
    if not new:
        return FineTuningData(old, validation, old.take(np.zeros(0, np.int64)))
    data = _read(new, base, network)
    for name, fault, _ in data.unread:
        log.warning("%s is left out of training: %s", name, fault)
    data = labelled.inked(data)
    apart = in_sample(data.sha256, HOLDOUT_SHARE)  # by their bytes: the same ones whatever else is answered later
    learnt, holdout = data.take(np.flatnonzero(~apart)), data.take(np.flatnonzero(apart))
    times = max(1, min(_MOST_REPEATED, math.ceil(_WEIGHT * len(old) / max(len(learnt), 1))))
    log.info("new images: %d to learn from, %d times over, and %d to measure on", len(learnt), times, len(holdout))
    repeated = learnt.take(np.tile(np.arange(len(learnt)), times))
    return FineTuningData(labelled.join([old, repeated]), validation, holdout)


def blend(model: "keras.Model", base: "keras.Model", validation: Labelled) -> float:
    """Move a model's weights back towards the base's until it reads MNIST's validation part as well, but `MOST_LOST`.

    Args:
        model: What was learnt; its weights are changed.
        base: Where it began, of the same architecture.
        validation: The base's validation part.

    Returns:
        The share of what was learnt that is kept: 1, 0.75, 0.5, 0.25, or 0 where all of it harms.

    Source: weights between those before and after fine-tuning: Wortsman et al., «Robust fine-tuning of zero-shot
    models», CVPR 2022.
    """
    rows = np.array([row for row, name in enumerate(validation.names) if name.startswith(f"{MNIST} ")], np.int64)
    part = validation.take(rows) if len(rows) else validation

    def accuracy(weights: list[Any]) -> float:
        model.set_weights(weights)
        logits = model.predict(part.pixels, batch_size=_AT_A_TIME, verbose=0)[:, :DIGITS]
        return float((logits.argmax(axis=1) == part.labels).mean())

    before, after = base.get_weights(), model.get_weights()
    least = accuracy(before) - MOST_LOST
    for share in _BLENDS:
        if accuracy([old + share * (new - old) for old, new in zip(before, after, strict=True)]) >= least:
            return share
    model.set_weights(before)
    return 0.0


def _recipe(base: Bundle) -> dict[str, Any]:
    """Give how a bundle was trained."""
    recipe = base.provenance.get("recipe")
    if not isinstance(recipe, dict) or not {"arch", "data", "seed", "validation_share"} <= set(recipe):
        message = f"The bundle {escaped(str(base.directory))} does not say how it was trained; train it anew."
        raise UsageError(message)
    return recipe


def _read(sources: list[str], base: Bundle, network: SharedFinder) -> Labelled:
    try:
        return labelled.join([labelled.read(source, network, base.normalisation, part="train") for source in sources])
    except StorageError as error:
        message = f"{str(error).rstrip('.')}; the bundle {escaped(str(base.directory))} goes on from these data."
        raise StorageError(message) from error


def load_base(settings: TrainSettings) -> Bundle | None:
    """Load the bundle that goes on learning; None where a model is trained from the beginning.

    Raises:
        UsageError: There is nothing to do.
        BundleError: The bundle cannot be used.
    """
    if settings.base is not None:
        return bundle.load(settings.base)
    if settings.epochs == 0:
        message = "With --epochs 0 nothing is learnt; give --from to fit the calibration of a bundle anew."
        raise UsageError(message)
    return None
