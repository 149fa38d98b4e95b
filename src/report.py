"""Make the page of a sweep, or of tables alone: python src/report.py sweep=multirun/...; see docs/report.md."""

from upsweep.doors.report import main

if __name__ == "__main__":
    main()
