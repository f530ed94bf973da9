"""Load a model and decide by its logits."""
