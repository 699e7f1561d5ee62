"""The one exception a user may see: a sentence, not a traceback."""


class InputError(ValueError):
    """Bad input, said in one sentence: the value, what was allowed, what to do.

    The command line prints it and exits with status 2.
    """


def require(holds: object, sentence: str) -> None:
    """Raise InputError with `sentence` unless `holds` is true."""
    if not holds:
        raise InputError(sentence)
