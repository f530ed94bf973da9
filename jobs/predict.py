"""The main job, for a scheduler that runs it from a checkout: `python jobs/predict.py SOURCE… -o REPORT…`."""

import sys

from batchdigits.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
