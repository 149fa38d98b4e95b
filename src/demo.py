"""A page on this machine to try weights: python src/demo.py, or python src/demo.py checkpoint=outputs/RUN."""

from upsweep.doors.demo import main

if __name__ == "__main__":
    main()
