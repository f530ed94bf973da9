"""What the command line says of its options: their types, limits and help in; defaults stand in `settings`."""

from pathlib import Path
from typing import Annotated

import typer

from batchdigits import __version__, settings
from batchdigits.console import check_number, read_config, read_share, without_source


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchdigits {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
]
Config = Annotated[
    Path | None,
    typer.Option(help="Job file (TOML) with defaults for these options.", callback=read_config, is_eager=True),
]
Model = Annotated[Path | None, typer.Option(help="Model bundle directory; without it, the one in the package.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on success.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        callback=check_number,
        help="Confidence below which a digit goes to review, in the place of --target-error.",
    ),
]
TargetError = Annotated[
    float,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        help="Share of wrong digits among those that are ok, such as 0.5%, which the threshold has to keep.",
    ),
]

Runtime = Annotated[
    settings.Runtime, typer.Option(help="What carries the model out; litert starts at once, of batchdigits[litert].")
]

# of predict

Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE", help="Folders (read recursively), files, quoted globs, or URLs.")
]
Output = Annotated[
    list[str],
    typer.Option(
        "--output", "-o", help="Report file, .csv, .parquet, .xlsx or .html; - is CSV to stdout. May be repeated."
    ),
]
Ledger = Annotated[
    Path | None, typer.Option(help="What is known from run to run; without it, the first report's name + .ledger.")
]
NoLedger = Annotated[bool, typer.Option("--no-ledger", help="Keep nothing for the next run.")]
Wait = Annotated[
    float,
    typer.Option(
        min=0, max=86_400, callback=check_number, help="Seconds to wait for another run that holds the ledger."
    ),
]
IfLocked = Annotated[
    settings.IfLocked, typer.Option(help="Where another run holds the ledger: end with code 75, or with 0.")
]
Force = Annotated[bool, typer.Option("--force", help="Predict all images anew, known or not.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Read files anew that gave a fault.")]
Include = Annotated[list[str], typer.Option(help="Read only files that match this gitignore pattern. May be repeated.")]
Exclude = Annotated[list[str], typer.Option(help="Pass over what matches this gitignore pattern. May be repeated.")]
Settle = Annotated[
    float,
    typer.Option(
        min=0,
        max=86_400,
        callback=check_number,
        help="A file younger than these seconds is read last, or in the next run.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace reports that were made from other sources.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that are predicted and recorded together.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads within one prediction.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help=f"Decoding workers; without it, one for each core, at most {settings.MOST_WORKERS}."),
]
Engine = Annotated[
    settings.EngineName, typer.Option(help="Where images are read: on this machine, or on Ray, of batchdigits[ray].")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Head node of the cluster for --engine ray, or auto; without it, a cluster on this machine for this run.",
    ),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Larger pages, width times height, are not decoded.")]
Probabilities = Annotated[bool, typer.Option("--probabilities", help="Add the columns p0 to p9 to CSV.")]
CsvDialect = Annotated[settings.CsvDialect, typer.Option(help="How CSV is spelled.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Write an empty report where no image is found.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be read, and write nothing.")]
Summary = Annotated[Path | None, typer.Option(help="Write the run's numbers, or why it failed, to this .json file.")]
Metrics = Annotated[
    Path | None, typer.Option(help="Write them to this .prom file, for the node exporter of Prometheus.")
]
ShowConfig = Annotated[
    bool,
    typer.Option(
        "--show-config",
        help="Print each option's value and where it came from, as a job file, and leave.",
        callback=without_source,
        is_eager=True,
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Say everything in JSON, an object a line.")]

# of train

Bundle = Annotated[Path, typer.Option("--output", "-o", help="The bundle directory to make.")]
Data = Annotated[
    list[str],
    typer.Option(
        help="mnist (the default), a folder with a sub-folder per digit, a CSV of path,label, or an answered report. "
        "May be repeated."
    ),
]
Base = Annotated[
    Path | None,
    typer.Option("--from", help="Model bundle that goes on learning: from --data, and what it was trained on."),
]
Arch = Annotated[settings.Arch, typer.Option(help="The network.")]
Teacher = Annotated[
    Path | None, typer.Option(help="Model bundle whose probabilities the network learns instead of the labels.")
]
Epochs = Annotated[int | None, typer.Option(min=0, help="Passes over the data; with --from, 0 refits the calibration.")]
StepSize = Annotated[int, typer.Option(min=1, help="Images a step.")]
LearningRate = Annotated[float | None, typer.Option(min=0, callback=check_number, help="Peak of the schedule.")]
ValidationShare = Annotated[
    float,
    typer.Option(min=0, max=1, callback=check_number, help="Share of the data that is split off for validation."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the split, the weights, the order, the variations.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Anew = Annotated[bool, typer.Option("--overwrite", help="Replace a training, or a bundle, that stands in --output.")]

# of evaluate

Labelled = Annotated[
    str, typer.Argument(metavar="SOURCE", help="mnist, a folder with a sub-folder per digit, or a CSV of path,label.")
]
Evaluation = Annotated[Path, typer.Option("--output", "-o", help="Folder for metrics and pictures.")]

# of explain

Image = Annotated[str | None, typer.Argument(metavar="IMAGE", help="The image; without it, a terminal is asked.")]
SaveInput = Annotated[Path | None, typer.Option(help="Write the 28×28 that the model saw as a PNG.")]

# of schedule

OfPredict = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE -o REPORT", help="What predict gets: SOURCE, reports, any option of it."),
]
Every = Annotated[str | None, typer.Option(metavar="TIME", help="Run every 15m, 2h or 1d.")]
Nightly = Annotated[bool, typer.Option("--nightly", help="Run at 02:15.")]
Limit = Annotated[str, typer.Option(metavar="TIME", help="End a run that takes longer: 90m, 6h, 1d.")]
Systemd = Annotated[bool, typer.Option("--systemd", help="Print a service and a timer instead of a crontab line.")]

# of correct

Report = Annotated[str, typer.Argument(metavar="REPORT", help="The report that people looked at.")]
Corrections = Annotated[
    Path, typer.Argument(metavar="CORRECTIONS", help="A .csv with their answers, as an edited copy of the report.")
]
