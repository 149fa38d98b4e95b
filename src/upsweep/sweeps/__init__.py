"""Sweeps: one process a job, a pool of devices, what each job came to, and the table that ranks them."""
