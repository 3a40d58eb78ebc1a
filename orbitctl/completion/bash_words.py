r"""A line of bash up to the cursor as words, and what readline has to insert for a word. No I/O.

bash gives a completion function words that are cut at COMP_WORDBREAKS and still quoted (`COMP_WORDS`), and replaces
only what stands behind the last break: of `a:b` the `b`, of `'a b` what follows the quote. So the line is read here as
the shell will read it, and each candidate is cut and quoted to fit behind what stays.
"""

from __future__ import annotations

_PLAIN = "_-./:=@%+,"
_BLANKS = " \t\n"
_SPECIAL_IN_DOUBLE = '\\"$`'


class Line:
    """A line up to the cursor.

    Args:
        text: The line; it begins with the command's name.
        breaks: COMP_WORDBREAKS.

    Attributes:
        words: The words before the cursor's, without quotes.
        starts: Where each of them begins in the line, and last the cursor's.
        current: The cursor's word up to the cursor, without quotes.
        is_file: Whether that is the file of a redirection.
        quote: The kind of quotes that the cursor is in: `'`, `"` or `$'` (bash(1), QUOTING); else "".
        replaced_from: Where in the line begins what readline replaces: up to the cursor.
    """

    def __init__(self, text: str, breaks: str) -> None:
        self.words: list[str] = []
        self.starts: list[int] = []
        self.current = ""
        self.is_file = False
        self.quote = ""
        self._text, self._breaks = text, breaks
        self._start: int | None = None  # of the word
        self._break: int | None = None  # behind the last one in the word
        self._kept = 0  # how many characters of `current` stand before that
        self._read()
        self.starts.append(len(text) if self._start is None else self._start)
        self.replaced_from = self.starts[-1] if self._break is None else self._break

    def _read(self) -> None:
        text, at = self._text, 0
        while at < len(text):
            character = text[at]
            at += 1
            if self.quote:
                at = self._in_quotes(character, at)
            elif character in _BLANKS:
                self._end_word()
            elif character in "<>":
                if self.current.isdigit():  # of `2>`
                    self._start, self.current = None, ""
                self._end_word()
                self.is_file = True
                while text[at : at + 1] and text[at] in "<>&|":
                    at += 1
            elif character in "|&;()":  # another command begins
                self._end_word()
                self.words, self.starts, self.is_file = [], [], False
            else:
                if self._start is None:
                    self._start = at - 1
                at = self._unquoted(character, at)

    def _unquoted(self, character: str, at: int) -> int:
        text = self._text
        if character == "$" and text[at : at + 1] and text[at] in "'\"":
            character, at = "$'" if text[at] == "'" else '"', at + 1
        if character in ("'", '"', "$'"):
            self.quote = character
            self._kept, self._break = len(self.current), at
            return at
        if character == "\\":
            self.current += text[at : at + 1].replace("\n", "")  # a dangling one is the beginning of a character
            return at + 1
        self.current += character
        if character in self._breaks:
            self._kept, self._break = len(self.current), at
        return at

    def _in_quotes(self, character: str, at: int) -> int:
        text = self._text
        if character == self.quote[-1]:
            self.quote = ""
            if character in self._breaks:
                self._kept, self._break = len(self.current), at
        elif character == "\\" and (
            self.quote == "$'" or (self.quote == '"' and text[at : at + 1] in _SPECIAL_IN_DOUBLE)
        ):
            self.current += text[at : at + 1]
            return at + 1
        else:
            self.current += character
        return at

    def _end_word(self) -> None:
        if self._start is None:
            return
        if not self.is_file:
            self.words.append(self.current)
            self.starts.append(self._start)
        self._start, self._break, self._kept, self.current, self.is_file = None, None, 0, "", False

    def insertion(self, word: str) -> str | None:
        """Return what readline has to put in the place of what it replaces, None where the word does not fit.

        Where the cursor is in quotes, the text stands in them; readline closes them.
        """
        if not word.startswith(self.current):
            return None
        return quoted(word[self._kept :], self.quote)


def quoted(text: str, quote: str = "") -> str:
    r"""Return text as bash has to be given it, behind the open quotes `'`, `"` or `$'` if there are any."""
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote == "$'":
        return text.replace("\\", "\\\\").replace("'", "\\'")
    if quote:
        # A history expansion (`!`) is done in double quotes too, and a backslash before it stays there.
        return "".join('"\\!"' if one == "!" else f"\\{one}" if one in _SPECIAL_IN_DOUBLE else one for one in text)
    return "".join(
        one if one.isalnum() or one in _PLAIN or (one > "\x7f" and one.isprintable()) else f"\\{one}" for one in text
    )
