"""Super-resolution: an LR image in, an SR image out, judged by PSNR and SSIM under a protocol."""
