"""The exceptions, of which a user meets the first, and where the project lives on disk."""

import difflib
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path


class DnmError(Exception):
    """Something the user can mend; the message, one line, says what was wrong, where, and what to do."""

    def __init__(self, text: str):
        super().__init__(" ".join(str(text).splitlines()))  # a file's name may hold several


class Interrupted(DnmError):
    """Training was stopped on request; its checkpoint is saved."""


class DeviceLost(Exception):
    """A step failed so that this process can trust its GPU no more; another process can."""


def reason(error: Exception) -> str:
    """What a `DnmError` says; of any other error its kind and first line."""
    first = next(iter(str(error).splitlines()), "")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "t allocate memory" in first):  # torch's
        return "not enough memory: take a smaller batch_size or max_length, or train fewer at a time"
    return str(error) if isinstance(error, DnmError) else f"{type(error).__name__}: {first}"


@contextmanager
def mendable(text: str) -> Iterator[None]:
    """Whatever fails inside becomes a `DnmError` with this text, ``{}`` in it the reason; what already is one stays."""
    try:
        yield
    except (DnmError, MemoryError):
        raise
    except Exception as error:
        raise DnmError(text.replace("{}", reason(error))) from None


@lru_cache
def say_once(text: str) -> None:
    """A warning, the first time in a process."""
    warnings.warn(text, stacklevel=3)


def unknown(kind: str, name: object, valid: Iterable[str]) -> DnmError:
    """The error for a name that does not exist, with the nearest valid one and the whole list."""
    valid = sorted(valid)
    near = difflib.get_close_matches(str(name).lower(), valid, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return DnmError(f"unknown {kind} {name!r}{hint} (known: {', '.join(valid)})")


def project_root() -> Path:
    """The folder that holds ``notebooks/``, ``data/`` and ``runs/``, where whatever has no other place is kept.

    ``$DNM_HOME`` if set; else the checkout that an editable install comes from; else the working directory.
    """
    if home := os.environ.get("DNM_HOME"):
        return Path(home).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()
