"""Simulate pages of handwriting at their own scale: hands and pens, paper and print, light and camera."""
