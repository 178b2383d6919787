"""The store of runs: results as JSON, checkpoints and models beside them, a lock for each run."""

import contextlib
import hashlib
import json
import os
import re
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dnm.config import RESULT_FORMAT, RunConfig
from dnm.data import augmentation
from dnm.data.datasets import dataset_of
from dnm.data.hub import identity
from dnm.disk import DiskError, lock, read_json, write_json
from dnm.errors import DnmError, project_root, reason


@dataclass(frozen=True)
class RunStore:
    """A folder of runs: ``<hash>.json`` (finished), ``<hash>.checkpoint``, ``<hash>.model/``, ``<hash>.error``."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path | None = None) -> "RunStore":
        """The store in ``folder``; by default ``runs/`` of the project."""
        path = Path(folder).expanduser().resolve() if folder else project_root() / "runs"
        if path.exists() and not path.is_dir():
            raise DnmError(f"{path} is a file; name a folder for the runs")
        return cls(path)

    def find(self, name: str, suffix: str) -> Path:
        """A file or folder as named, or the run's result or model (by its suffix) whose hash begins like that."""
        if Path(name).expanduser().exists() or not re.fullmatch(r"[0-9a-f]{4,12}", name):
            return Path(name).expanduser()
        if len(found := sorted(self.folder.glob(f"{name}*{suffix}"))) != 1:
            kept = " and have kept their model (--save-models)" * (suffix == ".model")
            raise DnmError(f"{len(found) or 'no'} runs in {self.folder} have a hash that begins with {name}{kept}")
        return found[0]

    def result_path(self, config: RunConfig) -> Path:
        return self.folder / f"{config.hash}.json"

    def checkpoint_path(self, *configs: RunConfig) -> Path:
        """The checkpoint of a run, or of runs that are trained together."""
        name = "+".join(config.hash for config in configs)
        if len(configs) > 1:
            name = "fleet-" + hashlib.sha256(name.encode()).hexdigest()[:12]
        return self.folder / f"{name}.checkpoint.safetensors"

    def model_path(self, config: RunConfig) -> Path:
        return self.folder / f"{config.hash}.model"

    def lock(self, config: RunConfig) -> FileLock:
        """The run's lock, held by whoever trains it; it ends when its holder dies."""
        return lock(self._file(".locks", config))

    def note_path(self, config: RunConfig) -> Path:
        """What a process that trains the run leaves for others to read: how far it is."""
        return self._file(".training", config)

    def put_note(self, config: RunConfig, step: int, history: list[dict], failure: str = "") -> None:
        note = {"process": os.getpid(), "step": step, "history": history, "failure": failure}
        with contextlib.suppress(OSError):  # a note is not worth a run
            self.note_path(config).write_text(json.dumps(note), encoding="utf-8")

    def notes(self) -> dict[str, dict]:
        """The notes of all runs that are being trained, by their hash."""
        found = {}
        for path in (self.folder / ".training").glob("[0-9a-f]" * 12):
            with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or being written
                found[path.name] = read_json(path)
        return found

    def _file(self, kind: str, config: RunConfig) -> Path:
        try:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot write to {self.folder}: {error.strerror}; name another folder") from None
        return self.folder / kind / config.hash

    def error_path(self, config: RunConfig) -> Path:
        return self.folder / f"{config.hash}.error"

    def put_error(self, config: RunConfig, error: str, details: str = "") -> None:
        """Record why a run failed; the next sweep tries it again, and its result removes the record."""
        about = {"error": error, "config": config.to_dict(), "host": socket.gethostname(), "details": details}
        write_json(self.error_path(config), about, indent=1)

    def stored(self, config: RunConfig, with_model: bool = False, warn: bool = False) -> dict | None:
        """The run's stored record, if it is one of the data and weights at hand (and, if asked for, has its model).

        With ``warn``, a file that is there and cannot be used is told of.
        """
        path = self.result_path(config)
        if not path.exists():
            return None
        weights = made = None
        with contextlib.suppress(DnmError):  # stored results can be read where there are none
            weights = identity(config.encoder, config.word_vectors)
        with contextlib.suppress(DnmError):
            made = augmentation.source(config)
        try:
            result = read_json(path)
            why = ("is not the result of this run" if
                   (result["format"], result["config"]) != (RESULT_FORMAT, config.to_dict()) else
                   "was trained on other sentences (the data set has changed)" if
                   result["data"]["fingerprint"] != dataset_of(config).fingerprint else
                   "was trained from other weights (the encoder has changed)" if
                   weights not in (None, result["encoder_weights"]) else
                   "was trained on other copies (its synonyms or translators have changed)" if
                   made not in (None, result.get("augmentation", {}).get("source", "")) else "")
            result["test_accuracy"], result["history"], result["test_predictions"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            why = f"cannot be read ({reason(error)})"
        if why:
            if warn:
                warnings.warn(f"{path.name} {why}; it is trained again", stacklevel=3)
            return None
        return result if not with_model or (self.model_path(config) / "head.safetensors").exists() else None

    def put(self, config: RunConfig, result: dict) -> None:
        """Store a finished run."""
        write_json(self.result_path(config), result)
        self.error_path(config).unlink(missing_ok=True)

    def drop_checkpoint(self, *configs: RunConfig) -> None:
        """Remove a checkpoint and what a killed process left of one."""
        path = self.checkpoint_path(*configs)
        for file in (path, *path.parent.glob(f".{path.name}.*.tmp")):
            file.unlink(missing_ok=True)


def load_files(path: Path) -> list[tuple[str, str, list[dict]]]:
    """Name, command and records of every file of one run or several in a folder, or of a single file.

    What is no file of runs, such as a benchmark, is passed over; one that cannot be read is left out with a warning.
    """
    found = []
    for file in [path] if path.is_file() else sorted(path.glob("[!.]*.json")):
        try:
            content = read_json(file)
            runs = content.get("runs", [content] * ("format" in content))
            if any(record["format"] != RESULT_FORMAT for record in runs):
                raise ValueError("of another version")
            found += [(file.name, content.get("command", ""), runs)] * bool(runs)
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            warnings.warn(f"{file} cannot be read ({reason(error)}) and is left out", stacklevel=2)
    return found


def records_in(path: Path) -> list[dict]:
    """All records of `load_files`."""
    return [record for *_, records in load_files(path) for record in records]
