"""Run the command predict: turn its options into settings, run the pipeline, and say how that went."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchdigits.cli.options import (
    Config,
    Ledger,
    Model,
    Quiet,
    Runtime,
    TargetError,
    Threshold,
    Verbose,
    check_number,
    config_text,
    given_by,
    given_ledger,
    given_ray_address,
    given_target,
    given_threshold,
    runtime_for,
    without_source,
)
from batchdigits.cli.process import LOG, exits, monitored
from batchdigits.engine.run_context import Stop
from batchdigits.errors import ExitCode, StorageError
from batchdigits.settings import (
    MOST_THREADS,
    MOST_WORKERS,
    CsvDialect,
    DecodingSettings,
    EngineName,
    IfLocked,
    PredictSettings,
    ReportSettings,
    RuntimeChoice,
)

if TYPE_CHECKING:
    from batchdigits.engine.local import Engine
    from batchdigits.monitoring import Summary

_DEFAULTS = PredictSettings(sources=())
_FOR_PEOPLE = ("report.csv", "report.html")  # what a run without -o writes where standard output is a terminal


@exits
def predict(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="One or more folders (read recursively), files, quoted globs, or URLs."),
    ],
    output: Annotated[
        list[str],
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="Report file, .csv, .parquet, .xlsx or .html; - is CSV to stdout. May be repeated. Without it, a "
            "terminal gets report.csv and report.html, a pipe CSV.",
        ),
    ] = list(_DEFAULTS.outputs),  # noqa: B006  Typer copies it
    model: Model = None,
    ledger: Ledger = _DEFAULTS.ledger,
    no_ledger: Annotated[bool, typer.Option("--no-ledger", help="Keep nothing for the next run.")] = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, callback=check_number, help="Seconds to wait for another run that holds the ledger."
        ),
    ] = _DEFAULTS.wait_seconds,
    if_locked: Annotated[
        IfLocked, typer.Option(help="Where another run holds the ledger: end with code 75, or with 0.")
    ] = IfLocked.FAIL,
    force: Annotated[bool, typer.Option("--force", help="Predict all images anew, known or not.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Read files anew that gave a fault.")] = False,
    include: Annotated[
        list[str], typer.Option(help="Read only files that match this gitignore pattern. May be repeated.")
    ] = list(_DEFAULTS.include),  # noqa: B006  Typer copies it
    exclude: Annotated[
        list[str], typer.Option(help="Skip what matches this gitignore pattern. May be repeated.")
    ] = list(_DEFAULTS.exclude),  # noqa: B006  Typer copies it
    settle: Annotated[
        float,
        typer.Option(
            min=0,
            max=86_400,
            callback=check_number,
            help="A file younger than these seconds is read last, or in the next run.",
        ),
    ] = _DEFAULTS.settle_seconds,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace reports that were made from other sources.")
    ] = False,
    target_error: TargetError = _DEFAULTS.target_error,
    threshold: Threshold = _DEFAULTS.threshold,
    no_adapt: Annotated[
        bool, typer.Option("--no-adapt", help="Let the threshold follow neither the folder nor people's answers.")
    ] = False,
    runtime: Runtime = RuntimeChoice.AUTO,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that are predicted at a time, 256 at most, or 32 with litert.")
    ] = _DEFAULTS.batch_size,
    threads: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Threads within one prediction.")
    ] = _DEFAULTS.threads,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help=f"Decoding workers; without it, one for each core, at most {MOST_WORKERS}."),
    ] = _DEFAULTS.workers,
    engine: Annotated[
        EngineName, typer.Option(help="Where images are read: on this machine, or on Ray, of batchdigits[ray].")
    ] = _DEFAULTS.engine,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Head node of the cluster for --engine ray, or auto; without it, a cluster on this machine for this "
            "run.",
        ),
    ] = _DEFAULTS.ray_address,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pages, width times height, are not decoded.")
    ] = _DEFAULTS.decoding.max_pixels,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add the columns p0 to p9 to CSV.")] = False,
    csv_dialect: Annotated[CsvDialect, typer.Option(help="How CSV is spelled.")] = _DEFAULTS.report.csv_dialect,
    allow_vanished: Annotated[
        bool,
        typer.Option("--allow-vanished", help="Let files leave the report that are gone by many, or with their disk."),
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write an empty report where no image is found.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be read, and write nothing.")] = False,
    summary: Annotated[
        Path | None, typer.Option(help="Write the run's numbers, or why it failed, to this .json file.")
    ] = _DEFAULTS.summary,
    metrics: Annotated[
        Path | None, typer.Option(help="Write them to this .prom file, for the node exporter of Prometheus.")
    ] = _DEFAULTS.metrics,
    config: Config = None,
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config",
            help="Print each option's value and where it came from, as a job file, and exit.",
            callback=without_source,
            is_eager=True,
        ),
    ] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Say everything in JSON, an object a line.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> ExitCode:
    """Read all images under SOURCE and write what digit is on each."""
    if show_config:
        typer.echo(config_text(context))
        return ExitCode.OK
    if given_by(context, "output") == "DEFAULT" and sys.stdout.isatty():
        output = list(_FOR_PEOPLE)
    if "-" in output and sys.stdout.name == os.devnull:
        message = "Standard output is closed, and the report was to go there; name a file with -o."
        raise StorageError(message)
    settings = PredictSettings(
        sources=tuple(sources),
        outputs=tuple(output),
        model=model,
        ledger=given_ledger(context),
        no_ledger=no_ledger,
        wait_seconds=wait,
        force=force,
        retry_failed=retry_failed,
        include=tuple(include),
        exclude=tuple(exclude),
        settle_seconds=settle,
        overwrite=overwrite,
        target_error=given_target(context),
        threshold=given_threshold(context),
        no_adapt=no_adapt,
        runtime=runtime_for(runtime, model),
        batch_size=batch_size,
        threads=threads,
        workers=workers,
        engine=engine,
        ray_address=given_ray_address(context),
        allow_vanished=allow_vanished,
        allow_empty=allow_empty,
        progress=sys.stderr.isatty() and not quiet and not log_json,
        summary=summary,
        metrics=metrics,
        decoding=DecodingSettings(max_pixels=max_pixels),
        report=ReportSettings(probabilities=probabilities, csv_dialect=csv_dialect),
    )
    if dry_run:
        LOG.info(_preview(settings))
        return ExitCode.OK
    return monitored(lambda: _run(settings), settings)


def _run(settings: PredictSettings) -> "Summary":
    with Stop(_promise_to_stop if settings.progress else None) as stop:
        with stop.patiently():  # an import may swallow what a signal raises
            from batchdigits import pipeline

        return pipeline.run(settings, stdout=sys.stdout.buffer, stop=stop, engine=_engine(settings))


def _preview(settings: PredictSettings) -> str:
    with Stop() as stop:
        with stop.patiently():
            from batchdigits import pipeline

        _engine(settings)
        return pipeline.preview(settings, stdout=sys.stdout.buffer)


def _promise_to_stop() -> None:
    """Answer Ctrl-C; by the number of the stream, which no signal finds half written."""
    os.write(sys.stderr.fileno(), b"\r\x1b[KFinishing this batch; press Ctrl-C again to stop now.\r\n")


def _engine(settings: PredictSettings) -> "Engine | None":
    """Give what reads where the settings say; None is this machine."""
    if settings.engine is EngineName.LOCAL:
        return None
    from batchdigits.engine.ray_cluster.engine import engine

    return engine(settings.ray_address)
