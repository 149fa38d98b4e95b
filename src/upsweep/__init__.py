"""upsweep: sweep deconvolutional generators for super-resolution, and see what each choice is worth."""

from upsweep.common.plotless import leave_plots_out

__version__ = "0.1.0"

leave_plots_out()
