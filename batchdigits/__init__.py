"""A folder of scanned handwritten digits in, a spreadsheet of what they say out."""

__version__ = "0.1.0"
