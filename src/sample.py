"""Make images of latents: python src/sample.py checkpoint=PATH count=64 seed=1."""

from upsweep.doors.sample import main

if __name__ == "__main__":
    main()
