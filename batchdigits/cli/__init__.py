"""The command line: options to settings, calls, messages and exit codes."""

import sys

if sys.platform == "win32":  # before the imports that fail there
    sys.exit("Error: batchdigits needs Linux or macOS; on Windows, install and run it within WSL (wsl --install).")
