"""Define the frozen records that every option lands in; each default stands here, once.

Leaves of the import graph: nothing here imports anything of this package but `errors`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar


class CsvDialect(StrEnum):
    """How a CSV report is spelled."""

    RFC4180 = "rfc4180"
    """UTF-8, comma, decimal point."""
    EXCEL = "excel"
    """The same with a byte-order mark, which Excel needs to see UTF-8."""
    EXCEL_EU = "excel-eu"
    """Byte-order mark, semicolon and decimal comma, as European Excel expects."""


class IfLocked(StrEnum):
    """What to do where another run holds the ledger."""

    FAIL = "fail"
    """End with exit code 75."""
    SKIP = "skip"
    """End with exit code 0."""


class Runtime(StrEnum):
    """What carries a model out."""

    KERAS = "keras"
    """TensorFlow: starts in seconds, reads every bundle, and uses a GPU."""
    LITERT = "litert"
    """LiteRT, of the extra `batchdigits[litert]`: starts in a tenth of a second, and reads what training exported."""


class RuntimeChoice(StrEnum):
    """What a user may say of the runtime."""

    AUTO = "auto"
    """LiteRT where it is installed, the bundle holds what training proved to read alike, and TensorFlow sees no GPU."""
    KERAS = "keras"
    """As `Runtime` says."""
    LITERT = "litert"
    """As `Runtime` says."""


class EngineName(StrEnum):
    """Where images are read."""

    LOCAL = "local"
    """On the processors of this machine."""
    RAY = "ray"
    """On a cluster of Ray, of the extra `batchdigits[ray]`."""


class Arch(StrEnum):
    """The architectures that the training job knows."""

    CNN = "cnn"
    TEACHER = "teacher"
    DENSE = "dense"
    FINDER = "finder"


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """What is too large to decode."""

    VERSION: ClassVar[int] = 4
    """Rises when `decoding` gives other pixels for the same bytes."""

    max_pixels: int = 150_000_000
    """Width × height by the header; a page over it is `too_large` and never decoded; A4 at 1200 dots an inch is not."""
    max_bytes: int = 512 * 2**20
    """Size of the file; one over it is `too_large` and never read."""


@dataclass(frozen=True, slots=True)
class NormalisationSettings:
    """The numbers of the normalisation; they travel in the bundle, since the model was trained behind them."""

    VERSION: ClassVar[int] = 8
    """Rises when `normalisation` does something else to pixels under the same numbers, or measures something else."""

    digit_side: int = 20
    """Pixels: the longer side of the digit's box (LeCun et al. 1998)."""
    flat_tolerance: int = 4
    """Grey levels: border pixels this near to the border's median count as the same paper."""
    flat_share: float = 0.6
    """Share of border pixels of the same paper from which the paper is taken as even."""
    ink_level: float = 0.25
    """Share of the darkest ink from which a pixel belongs to a stroke."""
    part_mass: float = 0.06
    """Share of the main component's mass that another needs to be a part of the digit."""
    part_distance: float = 0.25
    """Distance from the main component's box, in shares of its longer side, up to which another is a part."""


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """How rows are written."""

    probabilities: bool = False
    """Write the columns p0 … p9 into CSV (Parquet always has them)."""
    csv_dialect: CsvDialect = CsvDialect.RFC4180
    """The spelling of CSV."""
    originals: str = ""
    """The absolute folder in which the paths of rows begin, for links; empty where nothing can be linked to."""


STDOUT = "-"
"""The output that is no file: CSV goes to standard output."""

MOST_WORKERS = 16
"""Decoding workers where nobody says how many: so many keep one prediction busy, whatever the machine."""


MOST_THREADS = 256
"""Threads within one prediction, at most: no processor is quicker with more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model reads digits, by what, and which of them are `ok`."""

    model: Path | None = None
    """A bundle directory; None is the one in the package."""
    runtime: Runtime = Runtime.KERAS
    """What carries the model out."""
    target_error: float = 0.005
    """Share of wrong digits, 0 to 1, among those that are `ok`, which the threshold has to keep."""
    threshold: float | None = None
    """Confidence, 0 to 1, below which a digit goes to review; None takes the one that keeps the target."""


@dataclass(frozen=True, slots=True)
class PredictSettings(ModelSettings):
    """One run of the main job."""

    sources: tuple[str, ...]
    """Folders, files and globs, as given."""
    outputs: tuple[str, ...] = (STDOUT,)
    """Report files by ending; `-` is CSV to standard output."""
    ledger: Path | None = None
    """The ledger; None is the first report's name with `.ledger` after it."""
    no_ledger: bool = False
    """Keep nothing for the next run."""
    wait_seconds: float = 0.0
    """How long to wait for another run to let go of the ledger."""
    force: bool = False
    """Predict all anew, known or not."""
    retry_failed: bool = False
    """Read files anew that gave a fault."""
    include: tuple[str, ...] = ()
    """Patterns in gitignore syntax; where there are any, only files that match are read."""
    exclude: tuple[str, ...] = ()
    """Patterns in gitignore syntax; files that match are skipped, folders that match are not entered."""
    settle_seconds: float = 2.0
    """A file younger than this may still be being written: it is read last, or in the next run; 0 reads all at once."""
    overwrite: bool = False
    """Replace reports that were made from other sources."""
    no_adapt: bool = False
    """Take the threshold that keeps the target on the validation data, whatever is known of the folder."""
    batch_size: int = 256
    """Images that are predicted at a time, 256 at most, or 32 with LiteRT."""
    threads: int = 1
    """Threads within one prediction; their number may change the last bits of its sums."""
    workers: int | None = None
    """Decoding workers; None has one for each core that this process may use, and at most `MOST_WORKERS`."""
    engine: EngineName = EngineName.LOCAL
    """Where images are read."""
    ray_address: str | None = None
    """Ray's head node, `host:port`, or `auto`; None starts a cluster on this machine, for this run."""
    allow_vanished: bool = False
    """Files that are gone by many at once, or with their disk, leave the report instead of exit 5."""
    allow_empty: bool = False
    """No image found: write an empty report instead of exit 4."""
    progress: bool = False
    """Show a progress bar on standard error."""
    summary: Path | None = None
    """Where the run's numbers go as JSON; None writes none."""
    metrics: Path | None = None
    """Where they go as metrics of Prometheus; None writes none."""
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    """Limits of decoding."""
    report: ReportSettings = field(default_factory=ReportSettings)
    """How rows are written."""


EPOCHS = {Arch.CNN: 60, Arch.TEACHER: 40, Arch.DENSE: 10, Arch.FINDER: 10}
"""Passes over the training part where `TrainSettings.epochs` is None."""


FINE_EPOCHS = 4
"""Passes where a bundle goes on learning."""
RATE, FINE_RATE = 0.002, 0.0003
"""Peaks of the learning rate."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run of the training job."""

    output: Path
    """The bundle directory; what the run tells about itself stands beside it in the same directory."""
    data: tuple[str, ...] = ()
    """`mnist`, folders with a sub-folder per digit, CSV files of path,label, or reports that people have answered; none
    is `mnist`, or with a base what it was trained on."""
    base: Path | None = None
    """A bundle that goes on learning: from `data`, mixed with what it was trained on; None begins anew."""
    arch: Arch = Arch.CNN
    """The network."""
    teacher: Path | None = None
    """A bundle whose probabilities the network learns instead of the labels."""
    finder: Path | None = None
    """A folder with the ink finder that the network reads behind; None is the one in the package."""
    pages: int = 20_000
    """Simulated pages, with and without a digit, that it sees beside the data; the tutorial's network sees none."""
    epochs: int | None = None
    """Passes over the training part; None takes the architecture's own number from `EPOCHS`, or `FINE_EPOCHS`."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float | None = None
    """The peak of the cosine schedule; None takes `RATE`, or with a base `FINE_RATE`."""
    seed: int = 1998
    """Of the split, the first weights, the order and the variations."""
    validation_share: float = 0.1
    """Share of the data that is split off for validation; 0 to 1, exclusive."""
    resume: bool = False
    """Go on from the last checkpoint in `output`, if there is one."""
    overwrite: bool = False
    """Else replace what `output` holds of another training, or its bundle."""
    progress: bool = False
    """Show a progress bar on standard error."""


@dataclass(frozen=True, slots=True)
class EvaluateSettings(ModelSettings):
    """One evaluation."""

    source: str
    """A shipped set by its name (its test half), a folder with a sub-folder per digit, a CSV file of path,label, or an
    answered report."""
    output: Path = Path("evaluation")
    """The folder for metrics and pictures."""
    progress: bool = False
    """Show on standard error what it is at."""


@dataclass(frozen=True, slots=True)
class ExplainSettings(ModelSettings):
    """One image explained."""

    image: str
    """The file."""
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    """Limits of decoding."""


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """When the main job is to run by itself."""

    every: str | None = None
    """Run every `15m`, `2h` or `1d`: what cron can repeat evenly; None with `nightly` alone."""
    nightly: bool = False
    """Run at 02:15."""
    limit: str = "6h"
    """The longest that a run may take, in minutes, hours or days: `90m`, `6h`, `1d`."""
    systemd: bool = False
    """Write a service and a timer instead of a crontab line."""
