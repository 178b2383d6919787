"""Records of runs, from files or fresh, as one data frame: the only form in which tables and pictures take them."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from dnm.config import RunConfig
from dnm.disk import sealed, write_atomically
from dnm.errors import DnmError
from dnm.methods import METHODS
from dnm.runs.store import records_in

# What runs must share to be averaged or compared.
COMPARABLE = ["data", "fingerprint", "n_train", "encoder", "weights", "profile", "device", "precision"]
_COLUMNS = [*COMPARABLE, "dataset", "method", "title", "usual", "seed", "validation", "accuracy", "last_accuracy",
            "best_step", "ceiling", "seconds", "hash", "labels", "history", "predictions"]


def _device(record: dict) -> str:
    """The device without its count of threads, which changes times and not what may be averaged."""
    return re.sub(r", \d+ threads?\b", "", record["environment"]["device"])


def frame(records: list[dict]) -> pd.DataFrame:
    """One row a run; accuracies (``validation``: the best) and ceiling in percent.

    ``dataset`` is a name or a path, ``data`` what people call it; ``usual`` says that the method has its own settings;
    ``history`` and ``predictions`` are those of the record.
    """
    return pd.DataFrame([{
        **{name: r["config"][name] for name in ("dataset", "n_train", "method", "encoder", "seed")},
        **{name: r[name] for name in ("title", "best_step", "seconds", "hash", "history")}, "data": r["data"]["name"],
        "fingerprint": r["data"]["fingerprint"], "weights": r["encoder_weights"], "profile": r["label"],
        "device": _device(r), "precision": r["environment"]["precision"],
        "usual": r["title"] == METHODS[r["config"]["method"]].title,
        "validation": 100 * max((row["validation_accuracy"] for row in r["history"]), default=np.nan),
        "accuracy": 100 * r["test_accuracy"], "last_accuracy": 100 * r["last_test_accuracy"],
        "ceiling": 100 * r["data"]["ceiling"] if r["data"]["ceiling"] else np.nan, "labels": r["data"]["labels"],
        "predictions": r["test_predictions"]} for r in records], columns=_COLUMNS)


def keep(records: list[dict], path: Path) -> str:
    """Write all records to one file, with the command line that repeats them; returns a line that says where."""
    content = sealed({"command": "dnm " + shlex.join(sys.argv[1:]), "runs": records})
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    write_atomically(path, (text.replace('{"format"', '\n{"format"') + "\n").encode())
    return f"results: {path}"


def load(path: Path) -> pd.DataFrame:
    """The runs in a folder or file, each once; labels are told anew, in the words of today's profiles."""
    records = {}
    for record in records_in(path):
        key = (record["hash"], record["data"]["fingerprint"], record["encoder_weights"], _device(record),
               record["environment"]["precision"])
        records.setdefault(key, record | {"label": RunConfig(**record["config"]).label})
    if not records:
        raise DnmError(f"{path} holds no finished runs; train some with `dnm train`" if Path(path).exists() else
                       f"{path}: there is no such file or folder of stored runs")
    return frame(list(records.values()))
