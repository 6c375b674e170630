"""What comes from files, in messages of one line."""

_NAMED = 3


def shown(text, most=200):
    """Text from elsewhere on one line: what does not print is escaped, and the end of much cut."""
    text = str(text)
    characters = [
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most]
    ]
    return "".join(characters) + ("..." if len(text) > most else "")


def some(names, most=_NAMED):
    """The first few of several names in order, and how many more there are, as text."""
    names = sorted(str(name) for name in names)
    rest = len(names) - most
    return ", ".join(map(shown, names[:most])) + (f" and {rest} more" if rest > 0 else "")
