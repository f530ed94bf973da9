"""Run the commands train and evaluate: turn their options into settings, and call the job."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchdigits.cli.options import (
    Config,
    Model,
    Quiet,
    Runtime,
    TargetError,
    Threshold,
    Verbose,
    check_number,
    given_target,
    given_threshold,
    runtime_for,
)
from batchdigits.cli.process import LOG, exits, leave_on_interrupt
from batchdigits.engine.run_context import resumable
from batchdigits.errors import ExitCode, escaped
from batchdigits.settings import Arch, EvaluateSettings, RuntimeChoice, TrainSettings

_PACKAGED = Path("packaged")  # the word for the model in the package, wherever that was installed
_DEFAULTS = TrainSettings(output=Path("runs/cnn"))
_EVALUATE = EvaluateSettings(source="")


@exits
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle directory to make.")] = _DEFAULTS.output,
    data: Annotated[
        list[str],
        typer.Option(
            help="mnist (the default), a folder with a sub-folder per digit, a CSV of path,label, or an answered "
            "report. May be repeated."
        ),
    ] = list(_DEFAULTS.data),  # noqa: B006  Typer copies it
    base: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Model bundle that goes on learning: from --data, and what it was trained on. packaged is the one in "
            "the package.",
        ),
    ] = _DEFAULTS.base,
    arch: Annotated[Arch, typer.Option(help="The network.")] = _DEFAULTS.arch,
    teacher: Annotated[
        Path | None, typer.Option(help="Model bundle whose probabilities the network learns instead of the labels.")
    ] = _DEFAULTS.teacher,
    finder: Annotated[
        Path | None,
        typer.Option(help="Folder of the ink finder to read behind; by default it is the one in the package."),
    ] = _DEFAULTS.finder,
    pages: Annotated[
        int, typer.Option(min=0, help="Simulated pages, with and without a digit, to learn from beside the data.")
    ] = _DEFAULTS.pages,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Passes over the data; with --from, 0 refits the calibration.")
    ] = _DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = _DEFAULTS.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, callback=check_number, help="Peak of the schedule.")
    ] = _DEFAULTS.learning_rate,
    validation_share: Annotated[
        float,
        typer.Option(min=0, max=1, callback=check_number, help="Share of the data that is split off for validation."),
    ] = _DEFAULTS.validation_share,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the split, the weights, the order, the variations.")
    ] = _DEFAULTS.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a training, or a bundle, that stands in --output.")
    ] = False,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Train a model and write its bundle, with metrics and pictures beside it."""
    from batchdigits.inference.bundle import PACKAGED
    from batchdigits.inference.thresholds import tightest_target
    from batchdigits.training.train import train as train_model
    from batchdigits.training.train import train_finder

    settings = TrainSettings(
        output=output,
        data=tuple(data),
        base=PACKAGED if base == _PACKAGED else base,
        arch=arch,
        teacher=teacher,
        finder=finder,
        pages=pages,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validation_share=validation_share,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        progress=sys.stderr.isatty() and not quiet,
    )
    name = shlex.quote(escaped(str(output)))
    if arch is Arch.FINDER:
        with resumable(sys.argv[1:]):
            train_finder(settings)
        LOG.info("The ink finder stands in %s; read behind it with: batchdigits train --finder %s", name, name)
        return ExitCode.OK
    with resumable(sys.argv[1:]):
        made = train_model(settings)
    # A model that can prove no target is used with a threshold that somebody names, or not at all.
    named = "" if tightest_target(made.calibration.domains) else " --threshold 90%"
    LOG.info("The model stands in %s, with its metrics and pictures.", name)
    LOG.info("Next: batchdigits predict scans/ -o report.csv -o report.html --model %s%s", name, named)
    return ExitCode.OK


@exits
def evaluate(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="mnist, a folder with a sub-folder per digit, a CSV of path,label, or an answered report.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for metrics and pictures.")] = _EVALUATE.output,
    model: Model = None,
    runtime: Runtime = RuntimeChoice.AUTO,
    target_error: TargetError = _EVALUATE.target_error,
    threshold: Threshold = _EVALUATE.threshold,
    config: Config = None,
    verbose: Verbose = False,
) -> ExitCode:
    """Measure the model on labelled images."""
    leave_on_interrupt()
    from batchdigits.training.evaluation.evaluate import evaluate as evaluate_model
    from batchdigits.training.evaluation.metrics import as_text

    settings = EvaluateSettings(
        source,
        output,
        model=model,
        runtime=runtime_for(runtime, model),
        target_error=given_target(context),
        threshold=given_threshold(context),
        progress=sys.stderr.isatty(),
    )
    typer.echo(as_text(evaluate_model(settings)))
    LOG.info("Wrote metrics and pictures into %s", escaped(str(output)))
    return ExitCode.OK
