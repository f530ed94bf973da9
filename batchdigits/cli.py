"""The command line: options in, a call with their settings, an exit code out. No logic."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchdigits import __version__
from batchdigits.console import exits, read_config, say, silence_native_code
from batchdigits.errors import ExitCode, Locked, UsageError
from batchdigits.settings import (
    Arch,
    CsvDialect,
    DecodingSettings,
    EvaluateSettings,
    ExplainSettings,
    IfLocked,
    PredictSettings,
    ReportSettings,
    TrainSettings,
)
from batchdigits.stopping import Stop

app = typer.Typer(
    help="Reads the handwritten digit on each image of a folder into a spreadsheet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the program; None takes the arguments of the process. Ends in `SystemExit`."""
    if not {"-v", "--verbose"} & set(sys.argv[1:] if arguments is None else arguments):
        silence_native_code()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a bar that the terminal cannot show is no reason to fail
    app(arguments)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchdigits {__version__}")
        raise typer.Exit


Config = Annotated[
    Path | None,
    typer.Option(help="Job file (TOML) with defaults for these options.", callback=read_config, is_eager=True),
]
Model = Annotated[Path | None, typer.Option(help="Model bundle directory; without it, the one in the package.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on success.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks.")]
Threshold = Annotated[float, typer.Option(min=0, max=1, help="Confidence below which a digit goes to review.")]

_PREDICT = PredictSettings(sources=())
_REPORT = ReportSettings()
_TRAIN = TrainSettings(output=Path("runs/cnn"))
_EVALUATE = EvaluateSettings(source="")


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_PREDICT"})
@exits
def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Folders (read recursively), files, or quoted globs.")
    ],
    output: Annotated[
        list[str],
        typer.Option("--output", "-o", help="Report file, .csv or .parquet; - is CSV to stdout. May be repeated."),
    ] = list(_PREDICT.outputs),  # noqa: B006  Typer copies it
    model: Model = None,
    ledger: Annotated[
        Path | None, typer.Option(help="What is known from run to run; without it, the first report's name + .ledger.")
    ] = _PREDICT.ledger,
    no_ledger: Annotated[bool, typer.Option("--no-ledger", help="Keep nothing for the next run.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for another run that holds the ledger.")
    ] = _PREDICT.wait_seconds,
    if_locked: Annotated[
        IfLocked, typer.Option(help="Where another run holds the ledger: end with code 75, or with 0.")
    ] = IfLocked.FAIL,
    force: Annotated[bool, typer.Option("--force", help="Predict all images anew, known or not.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Read files anew that gave a fault.")] = False,
    threshold: Threshold = _PREDICT.threshold,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one prediction.")] = _PREDICT.batch_size,
    workers: Annotated[int, typer.Option(min=1, help="Decoding workers.")] = _PREDICT.workers,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pages, width times height, are not decoded.")
    ] = _PREDICT.decoding.max_pixels,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add the columns p0 to p9 to CSV.")] = False,
    csv_dialect: Annotated[CsvDialect, typer.Option(help="How CSV is spelled.")] = _REPORT.csv_dialect,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write an empty report where no image is found.")
    ] = False,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Read all images under SOURCE and write what digit is on each."""
    from batchdigits import pipeline

    settings = PredictSettings(
        sources=tuple(sources),
        outputs=tuple(output),
        model=model,
        ledger=ledger,
        no_ledger=no_ledger,
        wait_seconds=wait,
        force=force,
        retry_failed=retry_failed,
        threshold=threshold,
        batch_size=batch_size,
        workers=workers,
        allow_empty=allow_empty,
        progress=sys.stderr.isatty() and not quiet,
        decoding=DecodingSettings(max_pixels=max_pixels),
        report=ReportSettings(probabilities=probabilities, csv_dialect=csv_dialect),
    )
    try:
        with Stop() as stop:
            summary = pipeline.run(settings, stdout=sys.stdout.buffer, stop=stop)
    except Locked as error:
        if if_locked is IfLocked.FAIL:
            raise
        if not quiet:
            say(str(error))
        return ExitCode.OK
    if not quiet:
        say(summary.line())
    return ExitCode.FAULTS if summary.faulty else ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_TRAIN"})
@exits
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle directory to make.")] = _TRAIN.output,
    data: Annotated[
        list[str],
        typer.Option(help="mnist, a folder with a sub-folder per digit, or a CSV of path,label. May be repeated."),
    ] = list(_TRAIN.data),  # noqa: B006  Typer copies it
    arch: Annotated[Arch, typer.Option(help="The network.")] = _TRAIN.arch,
    teacher: Annotated[
        Path | None, typer.Option(help="Model bundle whose probabilities the network learns instead of the labels.")
    ] = _TRAIN.teacher,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = _TRAIN.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = _TRAIN.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak of the schedule.")] = _TRAIN.learning_rate,
    validation_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the data that is split off for validation.")
    ] = _TRAIN.validation_share,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split, the weights, the order, the variations.")
    ] = _TRAIN.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Train a model and write its bundle, with metrics and pictures beside it."""
    from batchdigits.training import runs

    runs.train(
        TrainSettings(
            output=output,
            data=tuple(data),
            arch=arch,
            teacher=teacher,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_share=validation_share,
            seed=seed,
            resume=resume,
            progress=sys.stderr.isatty() and not quiet,
        )
    )
    return ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_EVALUATE"})
@exits
def evaluate(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="mnist, a folder with a sub-folder per digit, or a CSV of path,label."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for metrics and pictures.")] = _EVALUATE.output,
    model: Model = None,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Measure the model on labelled images."""
    from batchdigits.training import runs
    from batchdigits.training.evaluation import as_text

    typer.echo(as_text(runs.evaluate(EvaluateSettings(source=source, output=output, model=model))))
    return ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_EXPLAIN"})
@exits
def explain(
    image: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="The image; without it, a terminal is asked.")
    ] = None,
    save_input: Annotated[Path | None, typer.Option(help="Write the 28×28 that the model saw as a PNG.")] = None,
    model: Model = None,
    threshold: Threshold = _PREDICT.threshold,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Say what digit is on one image, and how sure that is."""
    from batchdigits import explain as explaining

    if image is None:
        if not sys.stdin.isatty():
            message = "No image was named; expected one, as in: batchdigits explain scan.png"
            raise UsageError(message)
        typer.echo("Path of the image: ", err=True, nl=False)
        image = sys.stdin.readline().strip()
        if not image:
            message = "No path was given; expected that of an image."
            raise UsageError(message)
    explanation = explaining.explain(ExplainSettings(image=image, model=model, threshold=threshold))
    typer.echo(explanation.text())
    if save_input is not None:
        explaining.save_input(explanation, save_input)
    return ExitCode.FAULTS if explanation.is_fault else ExitCode.OK
