"""`python -m batchdigits` is the command `batchdigits`."""

from batchdigits.cli.app import main

if __name__ == "__main__":  # a worker process imports this module under another name
    main()
