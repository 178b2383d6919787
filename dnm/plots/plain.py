"""Text from data stays text wherever it is shown: in a terminal, a figure or Markdown. Pages have `html.escape`."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

# What moves a cursor, and what turns the order of letters around, is written as Python writes it.
_UNSEEN = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if chr(n) not in "\t\n"} | {
    n: f"\\u{n:04x}" for n in (*range(0x2028, 0x202f), *range(0x2066, 0x206a))}
# Plotly reads a little HTML, formulas between dollars, and a page's script colours.
_FIGURE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "#": "&#35;"})


def visible(text: str) -> str:
    """A text whose control characters can be seen and do nothing; ends of lines and tabs stay."""
    return text.replace("\r\n", "\n").translate(_UNSEEN)


def figure(text: str) -> str:
    """A text as a part of what Plotly shows."""
    return visible(text).translate(_FIGURE)


def markdown(text: object) -> str:
    """A text as a part of one line of Markdown, a table's cell too."""
    line = " ".join(visible(str(text)).split())
    return re.sub(r"[\\`*|~$]|<(?=\S)|&(?=[#\w])|\b_\B|\B_\b|](?=[(\[])", r"\\\g<0>", line)


class _Stream:
    """A stream on which nothing but the ``bars`` of tqdm moves the cursor."""

    def __init__(self, stream, bars: bool = False):
        self._stream, self._bars = stream, bars

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def write(self, text: str) -> int:
        bar = re.match(r"\r|(\x1b\[A)+\Z" if self._bars else "", text)
        return self._stream.write(bar[0] + visible(text[len(bar[0]):]) if bar else visible(text))


@contextmanager
def terminal() -> Iterator[None]:
    """Whatever is printed inside is `visible`."""
    out, err = sys.stdout, sys.stderr  # None where they are closed
    with redirect_stdout(out and _Stream(out)), redirect_stderr(err and _Stream(err, bars=True)):
        yield
