"""What everybody needs once: errors, checks, files written whole, locks, progress, devices, ranks, memory, tables."""
