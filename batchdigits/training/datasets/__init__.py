"""Provide the images that training and evaluation use."""
