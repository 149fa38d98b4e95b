"""Latents in, pictures out: a grid of samples, each as a file, and a walk between latents."""
