"""A folder of scanned handwritten digits in, a spreadsheet of what they say out."""

import importlib

__version__ = "0.1.0"

__all__ = ["Reader", "Reading", "__version__", "read", "read_folder"]


def __getattr__(name: str) -> object:
    """Give what stands in `batchdigits.api`, which is imported no sooner: the package itself stays light."""
    if name in __all__:
        return getattr(importlib.import_module("batchdigits.api"), name)
    message = f"module 'batchdigits' has no attribute {name!r}"
    raise AttributeError(message)
