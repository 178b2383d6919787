"""What people hand over as texts and classes, made sure of: errors name the position and what is wrong there."""

from collections.abc import Mapping, Set
from numbers import Real

import numpy as np
from sklearn.utils import column_or_1d

from dnm.errors import DnmError


class InputError(DnmError, ValueError):
    """Texts or classes that cannot be used; a `ValueError`, too, as scikit-learn's tools expect one."""


def sentences(texts, name: str = "texts") -> list[str]:
    """Texts as a list, from a list, array, pandas or `datasets` column; a single string is one sentence.

    Raises
    ------
    InputError : no texts, a table in place of a column, or one that is missing, no string, empty or half a character.
    """
    values = [texts] if isinstance(texts, str) else _column(texts, name)
    if not values:
        raise InputError(f"nothing to predict: {name} holds no sentence; give at least one")
    for place, text in enumerate(values):
        why = ("is missing" if _missing(text) else
               f"is of type {type(text).__name__}, not a string" + "; decode it first" * isinstance(text, bytes)
               if not isinstance(text, str) else "is empty" if not text.strip() else _half(text))
        if why:
            raise InputError(f"{name}[{place}] {why}; mend it or leave it out")
    return [str(text) for text in values]


def classes(y, count: int) -> np.ndarray:
    """Classes ``[n]`` as an array of strings, truth values or numbers.

    Raises
    ------
    InputError : not one for each of the ``count`` texts, one that is missing, of another kind, or no class at all.
    """
    if y is None:
        raise InputError("DNMClassifier requires y to be passed, but the target y is None: give the class of each text")
    values = _column(column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 else y, "y")
    if len(values) != count:
        raise InputError(f"inconsistent numbers of samples: {count} texts, but {len(values)} classes; give one each")
    first = None
    for place, value in enumerate(values):
        kind = (str if isinstance(value, str) else bool if isinstance(value, bool | np.bool_) else
                Real if isinstance(value, Real) else None)
        first = first or kind
        why = ("is missing" if _missing(value) else
               f"is of type {type(value).__name__}, not a string, whole number or truth value" if kind is None else
               f"is of type {type(value).__name__}, y[0] of type {type(values[0]).__name__}: give all classes the same"
               if kind != first else _half(value) if kind is str else
               "is infinity (inf)" if np.isinf(value) else
               f"is {value}: Unknown label type: continuous; a classifier needs classes, not measured numbers"
               if value != int(value) else "")
        if why:
            raise InputError(f"y[{place}] {why}")
    return np.array(values)


def _column(values, name: str) -> list:
    if hasattr(values, "__array__") and not hasattr(values, "__iter__"):
        values = np.asarray(values)
    if getattr(values, "ndim", 1) != 1:
        raise InputError(f"{name} is a table or array of shape {np.shape(values)}; give one column, a sentence each "
                         "(Reshape your data)")
    if isinstance(values, bytes | bytearray | str | Mapping | Set) or not hasattr(values, "__iter__"):
        raise InputError(f"{name} is of type {type(values).__name__}; give a list or a column")
    return list(values)


def _missing(value) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, Real) and value != value)


def _half(text: str) -> str:
    """What is wrong with a text that holds half a character, else nothing."""
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return ""
    return f"holds half a character (a lone surrogate: cut off, or not UTF-8): {text[:40]!a}"
