"""`python -m batchdigits` is the command `batchdigits`."""

from batchdigits.cli import main

main()
