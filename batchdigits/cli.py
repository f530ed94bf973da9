"""The command line: options in, a call with their settings, an exit code out. No logic."""

import atexit
import gc
import io
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from batchdigits import console, options, remote
from batchdigits import schedule as scheduling
from batchdigits.errors import ExitCode
from batchdigits.options import Config, Model, Quiet, Runtime, TargetError, Threshold, Verbose
from batchdigits.settings import (
    DecodingSettings,
    EngineName,
    EvaluateSettings,
    ExplainSettings,
    IfLocked,
    PredictSettings,
    ReportSettings,
    ScheduleSettings,
    TrainSettings,
)
from batchdigits.stopping import Stop, resumable

if TYPE_CHECKING:
    from batchdigits.engine import Engine

app = typer.Typer(
    help="Reads the handwritten digit on each image of a folder into a spreadsheet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run the program; None takes the arguments of the process. Ends in `SystemExit`."""
    gc.set_threshold(100_000)  # objects: imports make so many that last; looking every 700 took a tenth of a start
    atexit.register(gc.freeze)  # else Python looks at all of them again as it ends: an eighth of a run with nothing new
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's import would start one a core, beside our own workers
    os.environ["PYTHONSAFEPATH"] = "1"  # for all that is started from here, as in `children`
    given = sys.argv[1:] if arguments is None else arguments
    as_json = given[:1] == ["predict"] and "--log-json" in given
    if as_json or not {"-v", "--verbose"} & set(given):
        console.silence_native_code()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a bar that the terminal cannot show is no reason to fail
    console.run_program(app, given, as_json=as_json)


_PREDICT = PredictSettings(sources=())
_TRAIN = TrainSettings(output=Path("runs/cnn"))
_EVALUATE = EvaluateSettings(source="")
_SCHEDULE = ScheduleSettings()


@app.callback()
def _program(version: options.Version = False) -> None:
    pass


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_PREDICT"})
@console.exits
def predict(
    context: typer.Context,
    sources: options.Sources,
    output: options.Output = list(_PREDICT.outputs),  # noqa: B006  Typer copies it
    model: Model = None,
    ledger: options.Ledger = _PREDICT.ledger,
    no_ledger: options.NoLedger = False,
    wait: options.Wait = _PREDICT.wait_seconds,
    if_locked: options.IfLocked = IfLocked.FAIL,
    force: options.Force = False,
    retry_failed: options.RetryFailed = False,
    include: options.Include = list(_PREDICT.include),  # noqa: B006  Typer copies it
    exclude: options.Exclude = list(_PREDICT.exclude),  # noqa: B006  Typer copies it
    settle: options.Settle = _PREDICT.settle_seconds,
    overwrite: options.Overwrite = False,
    target_error: TargetError = _PREDICT.target_error,
    threshold: Threshold = _PREDICT.threshold,
    runtime: Runtime = _PREDICT.runtime,
    batch_size: options.BatchSize = _PREDICT.batch_size,
    threads: options.Threads = _PREDICT.threads,
    workers: options.Workers = _PREDICT.workers,
    engine: options.Engine = _PREDICT.engine,
    ray_address: options.RayAddress = _PREDICT.ray_address,
    max_pixels: options.MaxPixels = _PREDICT.decoding.max_pixels,
    probabilities: options.Probabilities = False,
    csv_dialect: options.CsvDialect = _PREDICT.report.csv_dialect,
    allow_empty: options.AllowEmpty = False,
    dry_run: options.DryRun = False,
    summary: options.Summary = _PREDICT.summary,
    metrics: options.Metrics = _PREDICT.metrics,
    config: Config = None,
    show_config: options.ShowConfig = False,
    log_json: options.LogJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Read all images under SOURCE and write what digit is on each."""
    if show_config:
        typer.echo(console.config_text(context))
        return ExitCode.OK
    from batchdigits import pipeline

    settings = PredictSettings(
        sources=tuple(sources),
        outputs=tuple(output),
        model=model,
        ledger=console.ledger(context),
        no_ledger=no_ledger,
        wait_seconds=wait,
        force=force,
        retry_failed=retry_failed,
        include=tuple(include),
        exclude=tuple(exclude),
        settle_seconds=settle,
        overwrite=overwrite,
        target_error=target_error,
        threshold=console.threshold(context),
        runtime=runtime,
        batch_size=batch_size,
        threads=threads,
        workers=workers,
        engine=engine,
        ray_address=console.ray_address(context),
        allow_empty=allow_empty,
        progress=sys.stderr.isatty() and not quiet and not log_json,
        summary=summary,
        metrics=metrics,
        decoding=DecodingSettings(max_pixels=max_pixels),
        report=ReportSettings(probabilities=probabilities, csv_dialect=csv_dialect),
    )
    if dry_run:
        _engine(settings)
        console.LOG.info(pipeline.preview(settings, stdout=sys.stdout.buffer))
        return ExitCode.OK
    with Stop() as stop:
        return console.monitored(
            lambda: pipeline.run(settings, stdout=sys.stdout.buffer, stop=stop, engine=_engine(settings)), settings
        )


def _engine(settings: PredictSettings) -> "Engine | None":
    """Give what reads where the settings say; None is this machine."""
    if settings.engine is EngineName.LOCAL:
        return None
    from batchdigits import scaleout

    return scaleout.engine(settings.ray_address)


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_TRAIN"})
@console.exits
def train(
    output: options.Bundle = _TRAIN.output,
    data: options.Data = list(_TRAIN.data),  # noqa: B006  Typer copies it
    base: options.Base = _TRAIN.base,
    arch: options.Arch = _TRAIN.arch,
    teacher: options.Teacher = _TRAIN.teacher,
    epochs: options.Epochs = _TRAIN.epochs,
    batch_size: options.StepSize = _TRAIN.batch_size,
    learning_rate: options.LearningRate = _TRAIN.learning_rate,
    validation_share: options.ValidationShare = _TRAIN.validation_share,
    seed: options.Seed = _TRAIN.seed,
    resume: options.Resume = False,
    overwrite: options.Anew = False,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Train a model and write its bundle, with metrics and pictures beside it."""
    from batchdigits.training import runs

    settings = TrainSettings(
        output=output,
        data=tuple(data),
        base=base,
        arch=arch,
        teacher=teacher,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validation_share=validation_share,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        progress=sys.stderr.isatty() and not quiet,
    )
    with resumable(sys.argv[1:]):
        runs.train(settings)
    return ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_EVALUATE"})
@console.exits
def evaluate(
    context: typer.Context,
    source: options.Labelled,
    output: options.Evaluation = _EVALUATE.output,
    model: Model = None,
    runtime: Runtime = _EVALUATE.runtime,
    target_error: TargetError = _EVALUATE.target_error,
    threshold: Threshold = _EVALUATE.threshold,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Measure the model on labelled images."""
    from batchdigits.training import runs
    from batchdigits.training.evaluation import as_text

    settings = EvaluateSettings(source, output, model, runtime, target_error, console.threshold(context))
    typer.echo(as_text(runs.evaluate(settings)))
    return ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_EXPLAIN"})
@console.exits
def explain(
    context: typer.Context,
    image: options.Image = None,
    save_input: options.SaveInput = None,
    model: Model = None,
    runtime: Runtime = _PREDICT.runtime,
    target_error: TargetError = _PREDICT.target_error,
    threshold: Threshold = _PREDICT.threshold,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Say what digit is on one image, and how sure that is."""
    from batchdigits import explain as explaining

    image = console.asked_for_image() if image is None else image
    explanation = explaining.explain(ExplainSettings(image, model, runtime, target_error, console.threshold(context)))
    typer.echo(explanation.text())
    if save_input is not None:
        explaining.save_input(explanation, save_input)
    return ExitCode.FAULTS if explanation.is_fault else ExitCode.OK


@app.command(context_settings={"ignore_unknown_options": True})
def schedule(
    arguments: options.OfPredict,
    every: options.Every = _SCHEDULE.every,
    nightly: options.Nightly = False,
    limit: options.Limit = _SCHEDULE.limit,
    systemd: options.Systemd = False,
) -> None:
    """Print what makes cron or systemd run predict by itself; install nothing."""
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    # Outside of `exits`, so that predict's own parser says what is wrong with its arguments; without the environment,
    # since a scheduler has another.
    context = program.commands["predict"].make_context("batchdigits predict", arguments, auto_envvar_prefix=None)
    settings = ScheduleSettings(every=every, nightly=nightly, limit=limit, systemd=systemd)
    _print_schedule(console.parameters_of(context), settings, outputs=context.params["output"])


@console.exits
def _print_schedule(
    parameters: list[scheduling.Parameter], settings: ScheduleSettings, *, outputs: list[str]
) -> ExitCode:
    from batchdigits import reports

    folder, timeout = str(Path.cwd()), shutil.which("timeout") or "timeout"
    text = scheduling.schedule(
        parameters, settings, folder=folder, python=sys.executable, timeout=timeout, is_there=os.path.lexists
    )
    reports.check_outputs(outputs)
    sys.stdout.buffer.write(os.fsencode(text))
    return ExitCode.OK


@app.command(context_settings={"auto_envvar_prefix": "BATCHDIGITS_CORRECT"})
@console.exits
def correct(
    report: options.Report,
    corrections: options.Corrections,
    ledger: options.Ledger = _PREDICT.ledger,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Read people's answers, for the next predict to show them in the report."""
    from batchdigits import corrections as correcting

    console.LOG.info(correcting.correct(remote.place(report), corrections, ledger=ledger, time=datetime.now(UTC)))
    return ExitCode.OK
