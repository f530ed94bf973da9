"""The training job, for a scheduler that runs it from a checkout: `python jobs/train.py --config jobs/train.toml`."""

import typer

from batchdigits.cli import train

if __name__ == "__main__":
    typer.run(train)
