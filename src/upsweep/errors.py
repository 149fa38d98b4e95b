"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input from outside: one sentence that says what, where, and what to do.

    The doors (`src/*.py`) print it without a traceback and exit with code 1.
    """
