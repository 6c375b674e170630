"""What comes from files, in messages of one line."""

_NAMED = 3


def shown(text, most=200):
    """Text from elsewhere on one line: what does not print is escaped, and the end of much cut."""
    text = str(text)
    characters = [
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most]
    ]
    return "".join(characters) + ("..." if len(text) > most else "")


def listed(names, most=_NAMED):
    """The first few of several names, and how many more there are, as text."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(map(shown, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def some(names, most=_NAMED):
    """As `listed`, of names whose own order says nothing: in alphabetical order."""
    return listed(sorted(map(str, names)), most)
