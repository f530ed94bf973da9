"""Measure a model and draw what was measured."""
