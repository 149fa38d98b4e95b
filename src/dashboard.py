"""Save a W&B workspace and a report for an online project: python src/dashboard.py project=upsweep."""

from upsweep.doors.dashboard import main

if __name__ == "__main__":
    main()
