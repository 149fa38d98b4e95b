"""Images: files, colour and the MATLAB-style bicubic resize, in numpy and torch alone."""
