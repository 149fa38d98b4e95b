"""Judge generators as papers do: python src/evaluate.py checkpoint=PATH 'benchmark=[set5,set14,bsd100]'."""

from upsweep.doors.evaluate import main

if __name__ == "__main__":
    main()
