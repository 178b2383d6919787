"""What is kept on disk: results as JSON, checkpoints and models as safetensors; written whole or not at all."""

import contextlib
import hashlib
import json
import os
import socket
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dnm.config import RunConfig
from dnm.errors import DnmError, project_root

RESULT_FORMAT = 2


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a file beside ``path`` and rename: a reader, or a crash, never meets half a file."""
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _replace(path, write)


def _replace(path: Path, write) -> None:
    from safetensors import SafetensorError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DnmError(f"cannot write {path}: {reason}; free some space or name another folder, then run the "
                       "same command again: finished runs are kept") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict, state: dict) -> None:
    """One safetensors file with ``state`` (JSON) and a checksum of every tensor in its header."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"state": json.dumps(state), "checksums": json.dumps({n: _checksum(t) for n, t in tensors.items()})}
    _replace(path, lambda temporary: save_file(tensors, temporary, header))


def load_tensors(path: Path) -> tuple[dict, dict]:
    """Tensors and state of a file of `save_tensors`; a `DnmError` where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state, checksums = json.loads(header["state"]), json.loads(header["checksums"])
        if checksums != {name: _checksum(tensor) for name, tensor in tensors.items()}:
            raise ValueError("checksums differ")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DnmError(f"{path} is corrupt ({error}): delete it and run the same command again to start this "
                       "run from its beginning") from None
    return tensors, state


def _checksum(tensor) -> int:
    import torch

    return zlib.crc32(tensor.flatten().view(torch.uint8).numpy()) if tensor.numel() else 0


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
        """The run's lock, held by whoever trains it; the operating system frees it when its holder dies."""
        return FileLock(self._file(".locks", config))

    def note_path(self, config: RunConfig) -> Path:
        """What a process that trains the run leaves for others to read: its number and the step it is at."""
        return self._file(".training", config)

    def _file(self, kind: str, config: RunConfig) -> Path:
        try:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DnmError(f"cannot write to {self.folder}: {error.strerror}; name another folder") from None
        return self.folder / kind / config.hash

    def error_path(self, config: RunConfig) -> Path:
        return self.folder / f"{config.hash}.error"

    def put_error(self, config: RunConfig, error: str, details: str = "") -> None:
        """Record why a run failed; the next sweep tries it again, and its result removes the record."""
        about = {"error": error, "config": config.to_dict(), "host": socket.gethostname(),
                 "when": time.strftime("%Y-%m-%d %H:%M:%S"), "details": details}
        write_atomically(self.error_path(config), (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())

    def finished(self, config: RunConfig, fingerprint: str, weights: str | None = None) -> tuple[dict | None, str]:
        """The stored result of a run, or None and the reason why it has to be trained (empty if it is new).

        ``fingerprint`` and ``weights`` are those of the data and the encoder at hand (None: not known).
        """
        path = self.result_path(config)
        if not path.exists():
            return None, ""
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["format"] != RESULT_FORMAT or result["config"] != config.to_dict():
                return None, f"{path.name} is not the result of this run"
            if result["data"]["fingerprint"] != fingerprint:
                return None, f"{path.name} was trained on other sentences (the data set has changed)"
            if weights is not None and result["encoder_weights"] != weights:
                return None, f"{path.name} was trained from other weights (the encoder has changed)"
            result["test_accuracy"], result["history"], result["test_predictions"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            return None, f"{path.name} cannot be read ({type(error).__name__})"
        return result, ""

    def put(self, config: RunConfig, result: dict) -> None:
        """Store a finished run."""
        write_atomically(self.result_path(config), (json.dumps(result, ensure_ascii=False) + "\n").encode())
        self.error_path(config).unlink(missing_ok=True)

    def drop_checkpoint(self, *configs: RunConfig) -> None:
        """Remove a checkpoint and what a killed process left of one."""
        path = self.checkpoint_path(*configs)
        for file in (path, *path.parent.glob(f".{path.name}.*.tmp")):
            file.unlink(missing_ok=True)

    def all_results(self) -> list[dict]:
        """Every readable result in the folder, in the order of their names."""
        results = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                if result["format"] == RESULT_FORMAT:
                    results.append(result)
            except (ValueError, KeyError, TypeError, OSError):
                continue
        return results
