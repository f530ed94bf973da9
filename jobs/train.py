"""The training job, for a scheduler that runs it from a checkout: `python jobs/train.py --config jobs/train.toml`."""

import sys

from batchdigits.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
