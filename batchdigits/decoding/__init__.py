"""Decode bytes to grey pages, or to a fault."""
