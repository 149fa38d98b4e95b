"""What a run leaves on disk, and how it is read. Knows no torch, no Hydra and no task."""
