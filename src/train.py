"""Train one generator, or with -m a sweep of them: python src/train.py -m init=xavier,he norm=bn,none."""

from upsweep.doors.train import main

if __name__ == "__main__":
    main()
