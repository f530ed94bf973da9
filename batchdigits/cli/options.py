"""Define the options that commands share, and where options get their values: command line, job file, default."""

import difflib
import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from batchdigits import settings
from batchdigits.cli.schedule import Parameter
from batchdigits.errors import BundleError, UsageError, escaped
from batchdigits.inference.thresholds import LOOSEST, STRICTEST
from batchdigits.settings import EngineName
from batchdigits.storage.local import opened_text
from batchdigits.storage.urls import check, refuse_secrets

_NOT_IN_JOB_FILES = {"config", "show_config"}


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the keys of a job file the defaults of the command's options."""
    if path is None:
        return None
    name_of_file = escaped(str(path))
    try:
        with opened_text(path) as file:
            job: dict[str, Any] = tomllib.loads(file.read())
    except OSError as error:
        message = f"The job file {name_of_file} cannot be read: {error.strerror}."
        raise typer.BadParameter(message) from error
    except (ValueError, RecursionError) as error:
        message = f"The job file {name_of_file} is not TOML: {escaped(str(error))}."
        raise typer.BadParameter(message) from error
    known = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name and parameter.name not in _NOT_IN_JOB_FILES
    }
    for key, value in job.items():
        name, shown = key.replace("-", "_"), escaped(key)
        if name in known and (expected := _expected_instead(value, known[name])):
            message = f"The job file {name_of_file} gives {shown} as another type; expected {expected}."
            raise typer.BadParameter(message)
        try:
            refuse_secrets(key, *_texts(value))
        except UsageError as error:
            raise typer.BadParameter(str(error)) from error
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(sorted(known))}."
            message = f"The job file {name_of_file} has the unknown key {shown}{hint}"
            raise typer.BadParameter(message)
    context.default_map = {key.replace("-", "_"): value for key, value in job.items()}
    return path


_TEXTS = frozenset({"str", "text", "path", "choice"})  # types of options, as versions of Typer call them
_WHOLE = frozenset({"int", "int range", "integer", "integer range"})


def _expected_instead(value: object, parameter: Any) -> str:  # noqa: ANN401  Typer does not export the type
    """Say what value of a job file an option takes instead of one; empty where it takes it."""
    if parameter.multiple or parameter.nargs != 1:
        fits = isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)
        return "" if fits else f'a list: {parameter.name} = ["…"]'
    if isinstance(value, str):
        return "a text without the character 0" if "\0" in value else ""  # numbers in quotes are read later
    kind = parameter.type.name
    if kind == "boolean":
        return "" if isinstance(value, bool) else "true or false"
    if kind in _TEXTS:
        return 'a text: "…"'
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    is_number = is_whole or (isinstance(value, float) and math.isfinite(value))
    if kind in _WHOLE:
        return "" if is_whole else "a whole number"
    return "" if is_number else "a number"


def _texts(value: object) -> Iterator[str]:
    """Give all keys and values of a job file's value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


def read_share(text: str | float) -> float:
    """Read a share of the surest digits that may be wrong: `0.5%` or `0.005`."""
    expected = f"share of errors; expected {STRICTEST:.1%} to {LOOSEST:.0%}, as in 0.5%"
    return _read_part(text, STRICTEST, LOOSEST, expected)


def read_confidence(text: str | float) -> float:
    """Read a confidence: `95%` or `0.95`."""
    return _read_part(text, 0, 1, "confidence; expected 0% to 100%, as in 95%, or 0 to 1")


def _read_part(text: str | float, least: float, most: float, expected: str) -> float:
    """Read a part of one, with a sign of per cent or without."""
    word = str(text).strip()
    try:
        part = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        part = math.nan
    if not least <= part <= most:
        message = f"{escaped(word)} is no {expected}{_meant(word, least, most) or '.'}"
        raise typer.BadParameter(message)
    return round(part, 6)


def _meant(word: str, least: float, most: float) -> str:
    """Guess which share a word means that lacks the sign of per cent, or has a decimal comma."""
    try:
        number = float(word.removesuffix("%").replace(",", "."))
    except ValueError:
        return ""
    if "%" not in word and least <= number <= most:
        return f"; did you mean {number:g}?"
    return f"; did you mean {number:g}%?" if least <= number / 100 <= most else ""


def check_number(number: float | None) -> float | None:
    """Refuse what is no number: it is neither below nor above any limit."""
    if number is not None and math.isnan(number):
        message = "nan is no number."
        raise typer.BadParameter(message)
    return number


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
        parser=read_confidence,
        metavar="CONFIDENCE",
        help="Confidence below which a digit goes to review, such as 95%, in the place of --target-error.",
    ),
]
TargetError = Annotated[
    float,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        show_default="0.5%",
        help="Share of wrong digits among those that are ok, such as 0.5%, which the threshold has to keep.",
    ),
]
Runtime = Annotated[
    settings.RuntimeChoice,
    typer.Option(help="What runs the model: auto takes litert, which starts at once, where batchdigits[litert] is."),
]
Ledger = Annotated[
    Path | None, typer.Option(help="What is known from run to run; without it, the first report's name + .ledger.")
]


def runtime_for(choice: settings.RuntimeChoice, model: Path | None) -> settings.Runtime:
    """Give the runtime that the user names, or for `auto` the one that starts sooner with a model."""
    if choice is not settings.RuntimeChoice.AUTO:
        return settings.Runtime(choice)
    from batchdigits.inference import bundle, runtimes

    return runtimes.best(model or bundle.PACKAGED)


def without_source(context: typer.Context, wanted: bool) -> bool:
    """Let `--show-config` do without a SOURCE."""
    if wanted:
        for parameter in context.command.params:
            parameter.required = False
    return wanted


def given_by(context: typer.Context, name: str) -> str:
    """Say what gave an option, by the name of Typer: `COMMANDLINE`, `DEFAULT`."""
    source = context.get_parameter_source(name)
    return source.name if source else ""


def stronger(context: typer.Context, first: str, second: str) -> str:
    """Say which of two options that exclude each other was given closer to the command line."""
    order = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP", "DEFAULT")
    ranks = [order.index(source.name) for name in (first, second) if (source := context.get_parameter_source(name))]
    return second if ranks[1] < ranks[0] else first


def parameters_of(context: Any) -> list[Parameter]:
    """Give what a command's parser read, for `schedule`."""
    parameters = []
    for parameter in context.command.params:
        value, origin = context.params[parameter.name], context.get_parameter_source(parameter.name)
        if value is not None and parameter.type.name == "path":
            value = Path(value)
        spellings = parameter.secondary_opts if value is False else parameter.opts
        flag = spellings[0] if spellings and parameter.param_type_name == "option" else ""
        parameters.append(Parameter(parameter.name, flag, value, origin.name if origin else ""))
    return parameters


def given_threshold(context: typer.Context) -> float | None:
    """Give `--threshold`, unless `--target-error` was given closer to the command line."""
    if stronger(context, "threshold", "target_error") == "target_error":
        return None
    found: float | None = context.params["threshold"]
    return found


def given_target(context: typer.Context) -> float:
    """Give `--target-error`; where nobody named it, and the model cannot prove the default, the tightest that it can.

    A model that cannot be used is left to the command, which says so to whoever monitors it, too.
    """
    target: float = context.params["target_error"]
    model = context.params["model"]
    if model is None or given_by(context, "target_error") != "DEFAULT" or given_threshold(context) is not None:
        return target
    from batchdigits.inference import bundle

    try:
        return bundle.usual_target(bundle.load(Path(model)))
    except BundleError:
        return target


def given_ledger(context: typer.Context) -> Path | None:
    """Give `--ledger`, unless `--no-ledger` was given closer to the command line."""
    found = context.params["ledger"]
    if found is not None and context.params["no_ledger"] and stronger(context, "ledger", "no_ledger") == "no_ledger":
        return None
    return None if found is None else Path(found)


def given_ray_address(context: typer.Context) -> str | None:
    """Give `--ray-address`, unless an engine that has none was given closer to the command line.

    Raises:
        UsageError: It was given for such an engine.
    """
    found: str | None = context.params["ray_address"]
    if found is None or context.params["engine"] == EngineName.RAY:
        return found
    if stronger(context, "ray_address", "engine") == "engine":
        return None
    message = "--ray-address is for --engine ray, and would do nothing here; give both, or neither."
    raise UsageError(message)


def config_text(context: typer.Context) -> str:
    """Give the value of every option, and where it came from, as a job file: TOML."""
    check(*context.params["sources"] or [], *context.params["output"])  # of passwords, nothing has come this far
    job_file = context.params["config"]
    lines = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        origin = {
            "COMMANDLINE": "from the command line",
            "ENVIRONMENT": f"environment {context.auto_envvar_prefix}_{name.upper()}",
            "DEFAULT_MAP": f"job file {escaped(str(job_file))}",
        }.get(source.name if source else "", "default")
        value = context.params[name]
        text = "(not set)" if value is None else _toml(value)
        if name not in _NOT_IN_JOB_FILES:
            lines.append(f"{'# ' if value is None else ''}{name} = {text}  # {origin}")
        elif job_file is not None and name == "config":
            lines.append(f"# config = {text}  # {origin}")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
