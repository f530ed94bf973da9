"""The command line: options to settings, calls, messages and exit codes."""
