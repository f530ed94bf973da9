"""Assemble the program of its commands, and hold those of them that are only a few lines. No logic."""

import atexit
import contextlib
import gc
import glob
import io
import os
import shlex
import shutil
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from batchdigits import __version__
from batchdigits.cli.closing import corrected
from batchdigits.cli.help import Command, with_command
from batchdigits.cli.options import (
    Config,
    Ledger,
    Model,
    Runtime,
    TargetError,
    Threshold,
    Verbose,
    given_target,
    given_threshold,
    parameters_of,
    runtime_for,
)
from batchdigits.cli.predict import predict
from batchdigits.cli.process import (
    LOG,
    are_flushed,
    exits,
    leave_on_interrupt,
    open_standard_streams,
    run_program,
    silence_native_code,
    speak_utf_8,
)
from batchdigits.cli.schedule import Parameter
from batchdigits.cli.schedule import schedule as schedule_text
from batchdigits.cli.train import evaluate, train
from batchdigits.engine.run_context import hold_signals, ignore_signals, release_signals
from batchdigits.errors import BatchDigitsError, ExitCode, UsageError, escaped
from batchdigits.settings import ExplainSettings, PredictSettings, RuntimeChoice, ScheduleSettings
from batchdigits.storage.urls import is_url

app = typer.Typer(
    help="Reads the handwritten digit on each image of a folder into a spreadsheet: batchdigits scans/",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the program; None takes the arguments of the process. Ends in `SystemExit`."""
    speak_utf_8()
    open_standard_streams()
    gc.set_threshold(100_000)  # objects: imports make so many that last; looking every 700 took a tenth of a start
    atexit.register(gc.freeze)  # else Python looks at all of them again as it ends: an eighth of a run with nothing new
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's import would start one a core, beside our own workers
    os.environ["PYTHONSAFEPATH"] = "1"  # for all that is started from here, as in `engine.children`
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    given = with_command(sys.argv[1:] if arguments is None else arguments, commands)
    is_run = given[:1] == ["predict"]
    (hold_signals if is_run else release_signals)()
    as_json = is_run and "--log-json" in given
    if as_json or not {"-v", "--verbose"} & set(given):
        silence_native_code()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a bar that the terminal cannot show is no reason to fail
    try:
        run_program(app, given, as_json=as_json)
    except OSError as error:  # no command lets one through: it is of help, or of a version, that nobody could be told
        with suppress(OSError):
            sys.stderr.write(f"batchdigits: Standard output cannot be written: {error.strerror}.\n")
        are_flushed(sys.stdout, sys.stderr)
        sys.exit(ExitCode.STORAGE)
    except SystemExit as end:
        is_told = are_flushed(sys.stdout)
        are_flushed(sys.stderr)  # the code says how it ended, if nobody reads why
        if not is_told and not end.code:
            sys.exit(ExitCode.STORAGE)
        raise
    finally:
        if is_run:
            ignore_signals()


_PREDICT = PredictSettings(sources=())
_SCHEDULE = ScheduleSettings()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"batchdigits {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


for _command in (predict, train, evaluate):
    _variables = {"auto_envvar_prefix": f"BATCHDIGITS_{_command.__name__.upper()}"}
    app.command(cls=Command, context_settings=_variables)(_command)


@app.command(cls=Command, context_settings={"auto_envvar_prefix": "BATCHDIGITS_EXPLAIN"})
@exits
def explain(
    context: typer.Context,
    image: Annotated[
        str | None, typer.Argument(metavar="IMAGE", help="The image; without it, a terminal is asked.")
    ] = None,
    save_input: Annotated[
        Path | None, typer.Option(help="Write the 28×28 that the model saw, of page 1, as a PNG.")
    ] = None,
    model: Model = None,
    runtime: Runtime = RuntimeChoice.AUTO,
    target_error: TargetError = _PREDICT.target_error,
    threshold: Threshold = _PREDICT.threshold,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Say what digit is on one image, and how sure that is."""
    from batchdigits.explain import explain as explain_image
    from batchdigits.explain import save_input as write_input

    image = _asked_for_image() if image is None else image
    leave_on_interrupt()
    settings = ExplainSettings(
        image,
        model=model,
        runtime=runtime_for(runtime, model),
        target_error=given_target(context),
        threshold=given_threshold(context),
    )
    explanations = explain_image(settings)
    for explanation in explanations:
        if len(explanations) > 1:
            typer.echo(f"{'' if explanation.page == 1 else chr(10)}Page {explanation.page}")
        typer.echo(explanation.text())
    if save_input is not None:
        write_input(explanations[0], save_input)
    return ExitCode.FAULTS if any(explanation.is_fault for explanation in explanations) else ExitCode.OK


def _asked_for_image() -> str:
    """Ask the terminal for the path of an image.

    Raises:
        UsageError: There is no terminal, or nothing was given.
    """
    if not sys.stdin.isatty():
        message = "No image was named; expected one, as in: batchdigits explain scan.png"
        raise UsageError(message)
    typer.echo("Path of the image: ", err=True, nl=False)
    if path := _unquoted(sys.stdin.readline().strip()):
        return path
    message = "No path was given; expected that of an image."
    raise UsageError(message)


def _unquoted(path: str) -> str:
    """Take a path as a terminal gets it where a file is dropped onto it: in quotes, or with its spaces escaped."""
    try:
        words = shlex.split(path)
    except ValueError:  # a quotation mark that belongs to the name
        return path
    return words[0] if len(words) == 1 and not os.path.lexists(path) else path


@app.command(cls=Command, context_settings={"ignore_unknown_options": True})
def schedule(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE -o REPORT", help="What predict gets: SOURCE, reports, any option of it."),
    ],
    every: Annotated[str | None, typer.Option(metavar="TIME", help="Run every 15m, 2h or 1d.")] = _SCHEDULE.every,
    nightly: Annotated[bool, typer.Option("--nightly", help="Run at 02:15.")] = False,
    limit: Annotated[
        str, typer.Option(metavar="TIME", help="End a run that takes longer: 90m, 6h, 1d.")
    ] = _SCHEDULE.limit,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Print a service and a timer instead of a crontab line.")
    ] = False,
) -> None:
    """Print what makes cron or systemd run predict by itself; install nothing."""
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    # Outside of `exits`, so that predict's own parser says what is wrong with its arguments; without the environment,
    # since a scheduler has another.
    context = program.commands["predict"].make_context("batchdigits predict", arguments, auto_envvar_prefix=None)
    settings = ScheduleSettings(every=every, nightly=nightly, limit=limit, systemd=systemd)
    given = context.params
    _print_schedule(parameters_of(context), settings, sources=given["sources"], outputs=given["output"])


@exits
def _print_schedule(
    parameters: list[Parameter], settings: ScheduleSettings, *, sources: list[str], outputs: list[str]
) -> ExitCode:
    from batchdigits.reports.publish import check_outputs, parse_outputs

    folder, timeout = str(Path.cwd()), shutil.which("timeout") or "timeout"
    text = schedule_text(
        parameters, settings, folder=folder, python=sys.executable, timeout=timeout, is_there=os.path.lexists
    )
    check_outputs(parse_outputs(outputs))
    for source in sources:
        if not (is_url(source) or glob.has_magic(source) or os.path.lexists(source)):
            LOG.warning("%s is not there now; runs fail until it is, as once its disk is mounted.", escaped(source))
    sys.stdout.buffer.write(os.fsencode(text))
    return ExitCode.OK


@app.command(cls=Command, context_settings={"auto_envvar_prefix": "BATCHDIGITS_CORRECT"})
@exits
def correct(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Any report of the run.")],
    corrections: Annotated[
        Path,
        typer.Argument(
            metavar="CORRECTIONS",
            help="Their answers: what the page downloaded, a filled-in copy of a report, or a .csv of path,corrected.",
        ),
    ],
    ledger: Ledger = _PREDICT.ledger,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Take people's answers into the reports of a run."""
    from batchdigits import pipeline
    from batchdigits.ledger.location import ledger_of
    from batchdigits.reports.corrections import correct as take_over
    from batchdigits.storage.remote import target_file

    target = target_file(report)
    place, named = (ledger or ledger_of(target)).absolute(), os.path.realpath(report)
    LOG.info(take_over(target, corrections, ledger=ledger, time=datetime.now(UTC)))
    folder, here = pipeline.remembered(place), Path.cwd()
    if folder is None or not folder.is_dir():  # it was moved
        LOG.info("Run predict again to see them in the report.")
        return ExitCode.OK
    try:
        with contextlib.chdir(folder):
            summary, outputs = pipeline.renew(place)
            LOG.info(corrected(summary, [_seen_from(here, output) for output in outputs]))
            if not is_url(report) and named not in map(os.path.realpath, outputs):
                old = "%s is of an older run than the last, and stays as it is; name it in the next predict, with -o."
                LOG.warning(old, escaped(report))
    except (BatchDigitsError, OSError) as error:
        LOG.warning("The answers are kept, but the reports could not be made anew; run predict again. %s", error)
        return error.exit_code if isinstance(error, BatchDigitsError) else ExitCode.STORAGE
    return ExitCode.OK


def _seen_from(here: Path, output: str) -> str:
    """Spell the name of a report, which begins in the working folder, for somebody who stands in another."""
    if is_url(output) or Path(output).is_absolute() or Path.cwd() == here:
        return output
    return os.path.relpath(output, here)
