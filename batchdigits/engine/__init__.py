"""Turn files into pages and logits, on this machine or on a cluster."""
