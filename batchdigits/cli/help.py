"""Arrange the help of commands: options in panels by what they are for, examples, and no variable beside each option.

Also what a command line without a command means.
"""

import glob
import os
from collections.abc import Container
from typing import Any

import typer.core

from batchdigits.storage.urls import is_url

_BASICS = "Basics"
_PANELS = {
    "Confidence": ("target_error", "threshold", "no_adapt"),
    "Reports": ("overwrite", "probabilities", "csv_dialect", "allow_empty"),
    "Training": (
        *("data", "base", "arch", "teacher", "finder", "pages", "epochs", "learning_rate", "validation_share", "seed"),
    ),
    "Every night": (
        *("ledger", "no_ledger", "wait", "if_locked", "force", "retry_failed", "settle", "allow_vanished"),
        *("summary", "metrics", "log_json", "config", "show_config"),
    ),
    "This machine": ("runtime", "batch_size", "threads", "workers", "max_pixels"),
    "Cluster": ("engine", "ray_address"),
}
"""The panels, in their order, and their options by the names in Python; all others are basics."""
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}
_ORDER = (None, _BASICS, *_PANELS)

_EXAMPLES = {
    "predict": (
        "predict scans/ -o report.csv -o report.html",
        "predict 'scans/*.png' -o report.xlsx --target-error 1%",
    ),
    "train": ("train --from packaged --data report.csv -o runs/tuned", "train -o runs/cnn --resume"),
    "evaluate": ("evaluate labelled/ -o evaluation", "evaluate mnist --model runs/tuned"),
    "explain": ("explain scan.png", "explain scan.png --save-input seen.png"),
    "schedule": ("schedule --nightly scans/ -o report.csv", "schedule --systemd --every 2h scans/ -o report.csv"),
    "correct": ("correct report.html ~/Downloads/corrections.csv", "correct report.csv answers.xlsx"),
}


class Command(typer.core.TyperCommand):
    """A command whose help has the panels in their order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  whatever Typer gives
        """Make the command as Typer does, with two examples below its help."""
        super().__init__(*args, **kwargs)
        self.epilog = epilog(str(self.name))
        for parameter in self.params:
            if isinstance(parameter, typer.core.TyperOption):
                parameter.show_envvar = False

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401  a context of the click that Typer holds
        """Give the parameters, arguments first and options by their panels."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, typer.core.TyperOption):
                parameter.rich_help_panel = _PANEL_OF.get(str(parameter.name), _BASICS)
        return sorted(parameters, key=lambda parameter: _ORDER.index(getattr(parameter, "rich_help_panel", None)))


def epilog(command: str) -> str:
    """Write what stands below the options of a command."""
    examples = "\n\n".join(f"    batchdigits {example}" for example in _EXAMPLES[command])
    if command == "schedule":
        last = "It takes all that predict takes."
    else:
        last = f"Each option may also stand in a variable, as BATCHDIGITS_{command.upper()}_CONFIG for --config."
    return f"Examples:\n\n{examples}\n\n{last}"


def with_command(arguments: list[str], commands: Container[str]) -> list[str]:
    """Put `predict` before arguments that begin with something to read: `batchdigits scans/`."""
    first = arguments[0] if arguments else "-"
    if first.startswith("-") or first in commands:
        return arguments
    is_source = os.path.lexists(first) or "/" in first or glob.has_magic(first) or is_url(first)
    return ["predict", *arguments] if is_source else arguments
