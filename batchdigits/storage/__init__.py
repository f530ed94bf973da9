"""Read and write bytes, on this machine and behind URLs."""
