"""Turn grey pages into the 28×28 images that the model reads."""
