"""Why a network makes what it makes: python src/explain.py checkpoint=PATH input=photo.png; see docs/explaining.md."""

from upsweep.doors.explain import main

if __name__ == "__main__":
    main()
