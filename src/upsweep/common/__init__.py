"""What everybody needs once: errors, files written whole, locks, progress, devices, memory, tables."""
