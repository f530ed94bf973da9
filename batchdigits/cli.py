"""The command line: options in, a call with their settings, an exit code out. No logic."""

import difflib
import functools
import io
import logging
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from batchdigits import __version__
from batchdigits.errors import BatchDigitsError, ExitCode, UsageError, shown
from batchdigits.settings import (
    Arch,
    CsvDialect,
    DecodingSettings,
    EvaluateSettings,
    ExplainSettings,
    PredictSettings,
    ReportSettings,
    TrainSettings,
)

P = ParamSpec("P")

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
        _silence_native_code()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a bar that the terminal cannot show is no reason to fail
    app(arguments)


def _silence_native_code() -> None:
    """Leave standard error to Python: what TensorFlow and codecs write to it by themselves would be cron's mail."""
    sys.stderr.flush()
    kept = os.dup(2)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _exits(command: Callable[P, ExitCode]) -> Callable[P, None]:
    """Turn what a command returns or raises into the exit code of the process."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose = bool(kwargs.get("verbose"))
        _log_to_stderr(verbose=verbose, quiet=bool(kwargs.get("quiet")))
        try:
            code = command(*args, **kwargs)
        except BatchDigitsError as error:
            _say(str(error))
            code = error.exit_code
        except KeyboardInterrupt:
            _say("interrupted")
            code = ExitCode.INTERRUPTED
        except Exception as error:
            if verbose:
                raise
            _say(f"unexpected error: {type(error).__name__}: {error}; run again with -v for its traceback")
            code = ExitCode.UNEXPECTED
        raise typer.Exit(code)

    return wrapped


def _say(message: str) -> None:
    typer.echo(f"batchdigits: {message}", err=True)


def _log_to_stderr(*, verbose: bool, quiet: bool) -> None:
    log = logging.getLogger("batchdigits")
    log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("batchdigits: %(message)s"))
    log.handlers = [handler]
    log.propagate = False


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the keys of a job file the defaults of the command's options."""
    if path is None:
        return None
    try:
        job: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        message = f"The job file {shown(str(path))} cannot be read: {error.strerror}."
        raise typer.BadParameter(message) from error
    except ValueError as error:
        message = f"The job file {shown(str(path))} is not TOML: {error}."
        raise typer.BadParameter(message) from error
    known = [parameter.name or "" for parameter in context.command.params if parameter.name != "config"]
    for key in job:
        name = key.replace("-", "_")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(sorted(known))}."
            message = f"The job file {shown(str(path))} has the unknown key {key}{hint}"
            raise typer.BadParameter(message)
    context.default_map = {key.replace("-", "_"): value for key, value in job.items()}
    return path


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchdigits {__version__}")
        raise typer.Exit


Config = Annotated[
    Path | None,
    typer.Option(help="Job file (TOML) with defaults for these options.", callback=_read_config, is_eager=True),
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
@_exits
def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Folders (read recursively), files, or quoted globs.")
    ],
    output: Annotated[
        list[str],
        typer.Option("--output", "-o", help="Report file, .csv or .parquet; - is CSV to stdout. May be repeated."),
    ] = list(_PREDICT.outputs),  # noqa: B006  Typer copies it
    model: Model = None,
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
        threshold=threshold,
        batch_size=batch_size,
        workers=workers,
        allow_empty=allow_empty,
        progress=sys.stderr.isatty() and not quiet,
        decoding=DecodingSettings(max_pixels=max_pixels),
        report=ReportSettings(probabilities=probabilities, csv_dialect=csv_dialect),
    )
    summary = pipeline.run(settings, stdout=sys.stdout.buffer)
    if not quiet:
        _say(summary.line())
    return ExitCode.FAULTS if summary.faulty else ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_TRAIN"})
@_exits
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
@_exits
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
@_exits
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
