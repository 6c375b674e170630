"""Lists of names in messages of one line."""

_NAMED = 3


def some(names):
    """The first few of several names in order, and how many more there are, as text."""
    names = [str(name) for name in sorted(names)]
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
