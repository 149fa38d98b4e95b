"""Image generation: a latent in, an image out, judged by distances between sets of images."""
