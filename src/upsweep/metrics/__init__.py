"""What results are judged by: figures as data; PSNR and SSIM under a protocol; the checkerboard."""
