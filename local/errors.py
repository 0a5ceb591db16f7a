"""The one exception whose message is for the user."""


class StackError(Exception):
    """What is wrong and what to do, in one sentence; shown without a traceback."""
