"""Write a trained generator for other programs: python src/export.py checkpoint=PATH format=onnx."""

from upsweep.doors.export import main

if __name__ == "__main__":
    main()
