"""The command line: options to settings, calls, messages and exit codes."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules load, Ctrl-C ends the process, without a traceback
if sys.platform == "win32":  # before the imports that fail there
    sys.exit("Error: batchdigits needs Linux or macOS; on Windows, install and run it within WSL (wsl --install).")


def main(arguments: list[str] | None = None) -> None:
    """Run the program, as `app.main` does; signals wait while its modules load, for a quarter of a second."""
    from batchdigits.engine.run_context import hold_signals

    hold_signals()
    from batchdigits.cli import app

    app.main(arguments)
