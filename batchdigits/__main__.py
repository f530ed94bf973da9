"""Run the command `batchdigits` as `python -m batchdigits`."""

import sys

if __name__ == "__main__":  # a worker process imports this module under another name
    if not sys.flags.safe_path and sys.path[0] != __file__.removesuffix("/batchdigits/__main__.py"):
        del sys.path[0]  # the current folder, which may hold the scans, and among them a `numpy.py`

    from batchdigits.cli import main

    main()
