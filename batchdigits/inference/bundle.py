"""Read and write a model's bundle: a directory of its networks and of `bundle.json`.

`bundle.json` names all that is needed to use the networks: the sums of their files, the normalisation that they were
trained behind, the calibration, and where they come from. A `.tflite` beside a network's `.keras` is the same function
for the fast runtime. The sums guard against damage, not against malice: load only bundles you trust.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from batchdigits.errors import BundleError, StorageError, escaped
from batchdigits.inference import drift
from batchdigits.inference.decisions import EVIDENCE
from batchdigits.inference.thresholds import (
    Calibration,
    Domain,
    DoubtCounts,
    Slope,
    ThresholdCounts,
    tightest_target,
)
from batchdigits.records import SIDE
from batchdigits.settings import DecodingSettings, ModelSettings, NormalisationSettings, Runtime
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.guards import opened
from batchdigits.storage.local import file_sha256

log = logging.getLogger(__name__)

FORMAT = 4
ASKING = 2
"""Rises when the networks of a bundle are asked in another way, which gives other logits: thresholds were proven on
those."""
"""Version of the layout of `bundle.json`."""

PACKAGED = Path(__file__).parents[1] / "model"
"""The bundle that ships with the package."""

_ENDINGS = {Runtime.KERAS: ".keras", Runtime.LITERT: ".tflite"}
_CARD = "bundle.json"
_REMEDY = "install batchdigits anew, or name a whole bundle with --model"


class Network(StrEnum):
    """The networks of a bundle, by the names of their files."""

    FINDER = "finder"
    """Takes looks, uint8[N, 64, 64, 3]; gives float32[N, 4100]: ink of each cell, 0 to 1, and logits of four kinds."""
    READER = "model"
    """Takes uint8[N, 28, 28]; gives logits, float32[N, K], K >= 10."""
    TEACHER = "teacher"
    """Takes and gives the same: the larger network that the reader learnt from, for what the reader is unsure of. A
    bundle may do without."""

    def file(self, runtime: Runtime) -> str:
        """Name its file for a runtime."""
        return self.value + _ENDINGS[runtime]


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
    files: frozenset[str]
    """The names of its networks' files."""

    @property
    def is_exported(self) -> bool:
        """Whether each of its networks has a file for the fast runtime."""
        return all(network.file(Runtime.LITERT) in self.files for network in Network if self.has(network))

    def has(self, network: Network) -> bool:
        """Tell whether it holds a network."""
        return network.file(Runtime.KERAS) in self.files

    @property
    def weights(self) -> Path:
        """The reader's Keras file."""
        return self.directory / Network.READER.file(Runtime.KERAS)


_FILES = frozenset(network.file(runtime) for network in Network for runtime in Runtime)


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
        message = f"The model bundle {name} has format {_shown(card.get('format'))}, expected {FORMAT}; {_REMEDY}."
        raise BundleError(message)
    try:
        declared = card.pop("id")
        whole = _id(card) == declared
        if whole and card["versions"] != _versions():  # before the settings, which may be others in that version
            message = (
                f"The model bundle {name} was made for {_shown(card['versions'])}, this program has {_versions()}; "
                f"{_REMEDY}."
            )
            raise BundleError(message)
        sums = dict(card["files"])
        lacking = {network.file(Runtime.KERAS) for network in (Network.FINDER, Network.READER)} - set(sums)
        if lacking or not sums.keys() <= _FILES:
            raise KeyError(*sorted(lacking or sums.keys() - _FILES))
        for part in ("normalisation", "calibration"):
            _check_numbers(card[part], part)
        normalisation = NormalisationSettings(**card["normalisation"])
        calibration = _calibration(card["calibration"])
        provenance = dict(card["provenance"])
        broken = [file for file, sha256 in sums.items() if file_sha256(directory / file) != sha256]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"The model bundle {name} is damaged: its {_CARD} lacks or garbles {_shown(error)}; {_REMEDY}."
        raise BundleError(message) from error
    except StorageError as error:
        message = f"The model bundle {name} cannot be used: {str(error).rstrip('.')}; {_REMEDY}."
        raise BundleError(message) from error
    if broken or not whole:
        message = f"The model bundle {name} is damaged: {(broken or [_CARD])[0]} does not match its sha256; {_REMEDY}."
        raise BundleError(message)
    return Bundle(directory, declared, normalisation, calibration, provenance, frozenset(sums))


def usual_target(model: Bundle) -> float:
    """Give the target error for where nobody named one: the default, or the tightest that the model can prove.

    Where it is the latter, a warning says so; where none can be proven, it is the default, which whoever uses it
    refuses.
    """
    target = ModelSettings().target_error
    tightest = tightest_target(model.calibration.domains)
    if tightest is None or tightest <= target:
        return target
    log.warning(
        "The validation data of the model in %s cannot prove a target error of %.1f%%; %.1f%% is the tightest that "
        "they can, and is used. Validate on more, or name a target error or a threshold.",
        *(escaped(str(model.directory)), 100 * target, 100 * tightest),
    )
    return tightest


def save(
    directory: Path,
    *,
    normalisation: NormalisationSettings,
    calibration: Calibration,
    provenance: dict[str, Any],
) -> Bundle:
    """Write `bundle.json` beside the networks that stand in `directory` already, and load the result.

    Args:
        directory: The bundle.
        normalisation: What the model was trained behind.
        calibration: What makes probabilities and decisions of its logits.
        provenance: JSON about the training run.
    """
    card = {
        "format": FORMAT,
        "versions": _versions(),
        "files": {name: file_sha256(directory / name) for name in sorted(_FILES) if (directory / name).exists()},
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
    files = [model.directory / name for name in (_CARD, *sorted(model.files))]
    try:
        return {file.name: file.read_bytes() for file in files}
    except OSError as error:
        message = f"The model bundle {escaped(str(model.directory))} cannot be read: {error.strerror}; {_REMEDY}."
        raise BundleError(message) from error


_MOST_SHOWN = 200  # characters of what a card says
_MOST = 1e12  # of a number; no measure or count of a training comes near
_SHARE = (0.0, 1.0)
_LIMITS = {  # of what else would end a run or give nonsense; of all others, 0 and `_MOST`
    "temperature": (1e-3, 1e3),
    "gate": _SHARE,
    "slopes": (-_MOST, _MOST),
    "digit_side": (1, SIDE),
    "flat_tolerance": (0, 255),
    "ink_level": (1e-3, 1.0),
    "part_distance": (0.0, _MOST),
    **dict.fromkeys(("flat_share", "part_mass"), _SHARE),
}
_WHOLE = frozenset({"digit_side", "flat_tolerance"})


def _check_numbers(value: Any, name: str) -> None:  # noqa: ANN401  it may be anything that JSON holds
    """Refuse numbers that no training writes.

    Args:
        value: Of a card, with all that is in it.
        name: What it is called there.

    Raises:
        ValueError: One is absurd, or is no number.
    """
    is_single = name in _LIMITS and name != "slopes"
    if isinstance(value, dict) and not is_single:
        for key, inner in value.items():
            _check_numbers(inner, str(key))
    elif isinstance(value, list) and not is_single:
        for inner in value:
            _check_numbers(inner, name)
    elif name != "name":
        least, most = _LIMITS.get(name, (0.0, _MOST))
        kind = int if name in _WHOLE else int | float
        if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
            message = f"{name}: {value}"
            raise ValueError(message)


def _shown(said: object) -> str:
    """Make what a card says safe for a terminal."""
    return escaped(str(said)[:_MOST_SHOWN])


def _read_card(directory: Path, name: str) -> dict[str, Any]:
    try:
        with opened(directory / _CARD) as file:
            card = json.loads(file.read())
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
    slopes = tuple(Slope(float(centre), float(slope)) for centre, slope in card["slopes"])
    domains = tuple(map(_domain, card["domains"]))
    limits = {tuple(counts[0] for table in (domain.risks, domain.doubts) for counts in table) for domain in domains}
    if len(limits) > 1:
        message = "domains, whose limits differ"
        raise ValueError(message)
    reference = tuple(int(count) for count in card["reference"])
    if len(slopes) not in (0, len(EVIDENCE)):
        message = f"slopes: {len(slopes)} of them"
        raise ValueError(message)
    if reference and (len(reference) != len(drift.EDGES) + 1 or not any(reference)):
        message = f"reference: {len(reference)} counts, of {sum(reference)} digits"
        raise ValueError(message)
    return Calibration(float(card["temperature"]), float(card["gate"]), slopes, domains, reference)


def _domain(card: dict[str, Any]) -> Domain:
    risks = tuple(ThresholdCounts(float(limit), int(passed), int(wrong)) for limit, passed, wrong in card["risks"])
    doubts = tuple(DoubtCounts(float(limit), int(passed), int(wrong)) for limit, passed, wrong in card["doubts"])
    return Domain(str(card["name"]), int(card["digits"]), risks, doubts)


def _id(card: dict[str, Any]) -> str:
    """The sha256 of the card, which holds that of the weights, in one canonical spelling."""
    return hashlib.sha256(json.dumps(card, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _versions() -> dict[str, int]:
    return {"decoding": DecodingSettings.VERSION, "normalisation": NormalisationSettings.VERSION, "asking": ASKING}
