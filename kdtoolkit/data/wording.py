"""What comes from files, in messages of one line; and names that files can hold."""

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


def is_line(value):
    """Whether this is a line of text: what a class name has to be, to be one of `labels.txt`."""
    if not isinstance(value, str) or not value or set(value) & set("\r\n"):
        return False
    try:
        value.encode()  # bytes of a file's name that are no text are surrogates
    except UnicodeEncodeError:
        return False
    return True
