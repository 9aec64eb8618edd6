"""Words for people: a number with its noun, a name that was meant, and names that others gave (files, folders, classes).

A name that others gave may hold anything: line breaks, escape sequences, bytes that are no text (Python has them as
surrogates), letters twice as wide as others, hundreds of characters. None of that may move a table, colour a terminal or
stop a figure.
"""

import difflib
import unicodedata


def printable(text) -> str:
    """The text on one line: white space as blanks, control characters and stray bytes as ``\\x1b``; the rest as it is."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character) -> str:
    kind, number = unicodedata.category(character), ord(character)
    if kind in ("Cc", "Zl", "Zp"):
        return " " if character in "\t\n\r\v\f\u2028\u2029\x85" else f"\\x{number:02x}"
    if kind == "Cs":  # a byte that is no UTF-8 stands as U+DC80 + byte - 0x80
        return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"
    # Turns the rest of the line round
    if kind == "Cf" and (0x202A <= number <= 0x202E or 0x2066 <= number <= 0x2069):
        return ""
    return character


def width(text) -> int:
    """Columns that a printable text takes in a terminal: two for wide letters, none for marks on the letter before."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text, most) -> str:
    """The text in at most so many columns; what is too long loses its middle."""
    if width(text) <= most:
        return text
    start, end, left = "", "", max(most - 1, 1)
    for number in range(len(text)):
        head, tail = text[len(start)], text[-1 - len(end)]
        if number % 3 < 2:  # the beginning says most
            if width(start + head) + width(end) > left:
                break
            start += head
        else:
            if width(start) + width(tail + end) > left:
                break
            end = tail + end
    return f"{start}…{end}"


def padded(text, columns, right=False) -> str:
    """The text with blanks up to so many columns."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks


def counted(number, what) -> str:
    """“1 notebook”, “2 notebooks”."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def nearest(word, known, alike=0.6) -> str:
    """ " (did you mean …?)" if one of ``known`` is spelt like ``word``, in so large a part at least, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), 1, alike)
    return f" (did you mean {close[0]}?)" if close else ""
