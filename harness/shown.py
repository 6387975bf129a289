"""Text of others on one's terminal and pages: nothing in it steers anything. Needs no torch."""


def clean(text: object) -> str:
    """One printable line: control, format and private characters become a replacement mark.

    >>> clean("a\\x1b[31mb\\nc")
    'a�[31mb c'
    """
    return printable(" ".join(str(text).split()))


def printable(text: str) -> str:
    """The text with everything but visible characters and spaces replaced."""
    return "".join(char if char.isprintable() or char in " \n" else "�" for char in text)
