"""What all tests share."""

import signal

# A runner started in the background of a shell ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
