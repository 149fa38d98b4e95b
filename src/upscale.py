"""Enlarge photos: python src/upscale.py input=photo.jpg scale=2 (a file, a folder, a glob)."""

from upsweep.doors.upscale import main

if __name__ == "__main__":
    main()
