"""The entry points, a screen each: read the config, call the library. `src/*.py` start them."""
