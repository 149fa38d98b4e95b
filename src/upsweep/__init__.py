"""upsweep: sweep deconvolutional generators for super-resolution, and see what each choice is worth."""

__version__ = "0.1.0"
