"""What many runs show: plain numbers in, sentences out. Knows no torch and no Hydra."""
