"""Run the command `batchdigits` as `python -m batchdigits`."""

from batchdigits.cli.app import main

if __name__ == "__main__":  # a worker process imports this module under another name
    main()
