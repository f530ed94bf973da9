"""Reach each kind of storage behind URLs."""
