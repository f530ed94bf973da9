"""Load a model from its directory, checked to be whole and made for this version, and save one.

`bundle.json` names all that is needed to use the weights: the normalisation that they were trained behind, the
calibration, and where they come from. `model.tflite`, the same function for the fast runtime, may stand beside them.
The sums guard against damage, not against malice: load only bundles you trust.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchdigits.errors import BundleError, StorageError, escaped
from batchdigits.inference.calibration import Calibration, ThresholdCounts
from batchdigits.settings import (
    DecodingSettings,
    NormalisationSettings,
)
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.local import file_sha256

FORMAT = 2
"""Version of the layout of `bundle.json`."""

PACKAGED = Path(__file__).parents[1] / "model"
"""The bundle that ships with the package."""

_WEIGHTS = "model.keras"
EXPORTED = "model.tflite"
"""The file of the fast runtime, which training exports."""
_CARD = "bundle.json"
_REMEDY = "install batchdigits anew, or name a whole bundle with --model"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model whose files were checked."""

    directory: Path
    """Where it lies."""
    id: str
    """sha256, hexadecimal, over everything in the bundle."""
    normalisation: NormalisationSettings
    """What the model was trained behind."""
    calibration: Calibration
    """What makes probabilities and decisions of its logits."""
    provenance: dict[str, Any]
    """Data, settings, versions and metrics of the training run, as JSON has them."""
    exported: Path | None
    """The file of the fast runtime; None where training exported none."""

    @property
    def weights(self) -> Path:
        """The Keras file."""
        return self.directory / _WEIGHTS


def load(directory: Path | None = None) -> Bundle:
    """Read a bundle and check that it is whole and made for this version.

    Args:
        directory: The bundle; None is the one in the package.

    Raises:
        BundleError: It is missing, damaged, or made for another version.
    """
    directory = PACKAGED if directory is None else directory
    name = escaped(str(directory))
    card = _read_card(directory, name)
    if card.get("format") != FORMAT:
        message = f"The model bundle {name} has format {card.get('format')}, expected {FORMAT}; {_REMEDY}."
        raise BundleError(message)
    try:
        declared = card.pop("id")
        whole = _id(card) == declared
        if whole and card["versions"] != _versions():  # before the settings, which may be others in that version
            message = (
                f"The model bundle {name} was made for {card['versions']}, this program has {_versions()}; {_REMEDY}."
            )
            raise BundleError(message)
        weights_sha256, exported_sha256 = card["weights_sha256"], card.get("exported_sha256")
        normalisation = NormalisationSettings(**card["normalisation"])
        calibration = _calibration(card["calibration"])
        provenance = dict(card["provenance"])
        sums = {_WEIGHTS: weights_sha256, **({EXPORTED: exported_sha256} if exported_sha256 else {})}
        broken = [file for file, sha256 in sums.items() if file_sha256(directory / file) != sha256]
    except (KeyError, TypeError, ValueError) as error:
        message = f"The model bundle {name} is damaged: its {_CARD} lacks or garbles {error}; {_REMEDY}."
        raise BundleError(message) from error
    except StorageError as error:
        message = f"The model bundle {name} cannot be used: {str(error).rstrip('.')}; {_REMEDY}."
        raise BundleError(message) from error
    if broken or not whole:
        message = f"The model bundle {name} is damaged: {(broken or [_CARD])[0]} does not match its sha256; {_REMEDY}."
        raise BundleError(message)
    exported = directory / EXPORTED if exported_sha256 else None
    return Bundle(directory, declared, normalisation, calibration, provenance, exported)


def save(
    directory: Path,
    *,
    normalisation: NormalisationSettings,
    calibration: Calibration,
    provenance: dict[str, Any],
) -> Bundle:
    """Write `bundle.json` beside the `model.keras` that stands in `directory` already, and load the result.

    A `model.tflite` that stands there, too, is taken into the bundle.

    Args:
        directory: The bundle.
        normalisation: What the model was trained behind.
        calibration: What makes probabilities and decisions of its logits.
        provenance: JSON about the training run.
    """
    exported = directory / EXPORTED
    card = {
        "format": FORMAT,
        "versions": _versions(),
        "weights_sha256": file_sha256(directory / _WEIGHTS),
        **({"exported_sha256": file_sha256(exported)} if exported.exists() else {}),
        "normalisation": asdict(normalisation),
        "calibration": asdict(calibration),
        "provenance": provenance,
    }
    text = json.dumps({"id": _id(card), **card}, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(directory / _CARD) as file:
        file.write(text.encode())
    return load(directory)


def packed(model: Bundle) -> dict[str, bytes]:
    """Give the files of a bundle by their names, for a machine that has another disk.

    Raises:
        BundleError: They are gone meanwhile.
    """
    files = [model.directory / _CARD, model.weights, *([model.exported] if model.exported else [])]
    try:
        return {file.name: file.read_bytes() for file in files}
    except OSError as error:
        message = f"The model bundle {escaped(str(model.directory))} cannot be read: {error.strerror}; {_REMEDY}."
        raise BundleError(message) from error


def _read_card(directory: Path, name: str) -> dict[str, Any]:
    try:
        card = json.loads((directory / _CARD).read_bytes())
    except OSError as error:
        message = f"The model bundle {name} cannot be read: {error.strerror}: {_CARD}; {_REMEDY}."
        raise BundleError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"The model bundle {name} is damaged: its {_CARD} is not JSON; {_REMEDY}."
        raise BundleError(message) from error
    if not isinstance(card, dict):
        message = f"The model bundle {name} is damaged: its {_CARD} holds no object; {_REMEDY}."
        raise BundleError(message)
    return card


def _calibration(card: dict[str, Any]) -> Calibration:
    risks = tuple(
        ThresholdCounts(float(threshold), int(passed), int(wrong)) for threshold, passed, wrong in card["risks"]
    )
    reference = tuple(int(count) for count in card["reference"])
    return Calibration(float(card["temperature"]), float(card["gate"]), risks, reference)


def _id(card: dict[str, Any]) -> str:
    """The sha256 of the card, which holds that of the weights, in one canonical spelling."""
    return hashlib.sha256(json.dumps(card, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _versions() -> dict[str, int]:
    return {"decoding": DecodingSettings.VERSION, "normalisation": NormalisationSettings.VERSION}
