"""What results are judged by: figures as data; PSNR and SSIM; distances between sets of images; the checkerboard."""
