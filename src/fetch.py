"""Download a data set, checked and resumed where it broke off: python src/fetch.py data=div2k."""

from upsweep.doors.fetch import main

if __name__ == "__main__":
    main()
