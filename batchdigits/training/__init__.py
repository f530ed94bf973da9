"""The training job: labelled images in, a model bundle with its metrics and pictures out."""
