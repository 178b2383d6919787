"""Predictions for a file of any length: bounded memory, and what was interrupted goes on where it stopped."""

import csv
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from filelock import Timeout

from dnm import __version__
from dnm.data.files import Table, chunks
from dnm.disk import lock, read_json, unwritable, write_json
from dnm.errors import DnmError

SIZE = 2000  # rows that are predicted, written and secured together
WRITTEN = (".csv", ".tsv", ".jsonl")


def predict_file(classifier, path: Path | str, out: Path, text_column: str = "", *, separator: str = "",
                 sheet: str = "", model: str = "", on_rows: Callable[[int, list[str]], None] = lambda done, notes: None
                 ) -> dict:
    """Classify every row of a file; write its columns, the class as ``predicted`` and that class's ``probability``.

    Rows keep their order; one without a text gets no class. Until all are done they lie in ``out`` + ``.part``, and
    beside it stands how far they are, secured every `SIZE` rows: the same call goes on there, as long as ``path`` and
    ``model``, which names the weights, are those it began with. Standard input (``-``) always starts anew.

    Parameters
    ----------
    classifier : a fitted `dnm.DNMClassifier`.
    text_column, separator, sheet : as in `dnm.data.files.chunks`.
    out : a .csv, .tsv or .jsonl file, in UTF-8; one call at a time writes it.
    on_rows : called after each `SIZE` rows with the rows done and sentences on what was found in the file.

    Returns ``rows``, ``empty`` (those without a text) and ``before`` (those an earlier call had done).
    """
    if out.suffix.lower() not in WRITTEN:
        raise DnmError(f"cannot write {out.name}: name a file that ends in {', '.join(WRITTEN)}")
    if str(path) != "-" and out.exists() and out.samefile(path):
        raise DnmError(f"{out} is the file that is read; name another for the predictions")
    part, note, held = (out.with_name(out.name + end) for end in (".part", ".part.json", ".part.lock"))
    job = [str(path), *_stamp(path), model, text_column, separator, sheet, SIZE, __version__]
    try:
        with lock(held, timeout=0):
            done = _predict(classifier, job, part, note, on_rows, text_column, separator, sheet)
            os.replace(part, out)
            note.unlink(missing_ok=True)
            held.unlink(missing_ok=True)
    except Timeout:
        raise DnmError(f"another process is writing {out}; wait for it, or name another file") from None
    except OSError as error:
        raise unwritable(out, error) from None
    return done


def _predict(classifier, job: list, part: Path, note: Path, on_rows: Callable, *options: str) -> dict:
    done = _begun(part, note, job) or {"rows": 0, "bytes": 0, "empty": 0, "crc": 0}
    before, seen, (column, separator, sheet) = done["rows"], 0, options
    kind, usual = Path(part.stem).suffix.lower(), getattr(classifier, "text_column_", "")
    with part.open("r+b" if before else "wb") as file:
        file.truncate(done["bytes"])
        file.seek(done["bytes"])
        for table in chunks(job[0], column, usual, separator=separator, sheet=sheet, size=SIZE):
            seen += len(table.texts)
            if seen > before:
                content = _written(table, classifier, kind, first=not done["rows"])
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                done = {"rows": seen, "bytes": file.tell(), "empty": done["empty"] + table.texts.count(""),
                        "crc": zlib.crc32(content, done["crc"])}
                write_json(note, {"job": job} | done)
            on_rows(seen, table.notes)
    if not seen:
        raise DnmError(f"{job[0]}: no rows below the column names")
    return {"rows": seen, "empty": done["empty"], "before": before}


def _stamp(path: Path | str) -> list:
    if str(path) == "-":
        return []
    about = Path(path).stat()
    return [about.st_size, about.st_mtime_ns]


def _begun(part: Path, note: Path, job: list) -> dict | None:
    """What an earlier call of the same job has done, if its files still say so."""
    try:
        found = read_json(note)
        left, crc = found["bytes"], 0
        with part.open("rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                left, crc = left - len(block), zlib.crc32(block, crc)
        whole = found.pop("job") == job and not left and crc == found["crc"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole and job[0] != "-" else None


def _written(table: Table, classifier, kind: str, first: bool) -> bytes:
    """Rows of a table with their predictions, as bytes of the output; the ``first`` below the columns' names."""
    held = [i for i, text in enumerate(table.texts) if text]
    names, shares = [None] * len(table.texts), [None] * len(table.texts)
    if held:
        probabilities = classifier.predict_proba([table.texts[i] for i in held])
        for i, row in zip(held, probabilities, strict=True):
            names[i], shares[i] = classifier.label_names[row.argmax()], round(float(row.max()), 4)
    columns = dict(table.columns)
    columns[_free("predicted", columns)] = names
    columns[_free("probability", columns)] = shares
    if kind == ".jsonl":
        rows = (dict(zip(columns, map(_plain, row), strict=True)) for row in zip(*columns.values(), strict=True))
        return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode(errors="replace")
    text = io.StringIO(newline="")
    separator = "\t" if kind == ".tsv" else table.separator.strip("\t") or ","
    write = csv.writer(text, delimiter=separator, lineterminator="\r\n")  # else a lone \r would not be quoted
    write.writerows([columns] * first)
    write.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode("utf-8-sig" if first else "utf-8", "replace")  # spreadsheets want it said


def _plain(value):
    return None if value != value else value  # JSON has no NaN


def _free(name: str, taken: dict) -> str:
    numbered: Iterator[str] = (f"{name}.{n}" for n in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)
