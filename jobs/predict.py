"""The main job, for a scheduler that runs it from a checkout: `python jobs/predict.py SOURCE… -o REPORT…`."""

import typer

from batchdigits.cli import predict

if __name__ == "__main__":
    typer.run(predict)
