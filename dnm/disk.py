"""What is kept on disk: files as safetensors with checksums, written whole or not at all."""

import contextlib
import errno
import json
import os
import warnings
import zlib
from functools import cache
from pathlib import Path

from filelock import FileLock, SoftFileLock

from dnm.errors import DnmError, mendable


class DiskError(DnmError):
    """Something could not be written: the disk is full, or the folder cannot be written to."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a file beside ``path`` and rename: a reader, or a crash, never meets half a file."""
    _replace(path, lambda temporary: temporary.write_bytes(content))


def _replace(path: Path, write) -> None:
    from safetensors import SafetensorError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:  # on the disk before it has its name
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DiskError(f"cannot write {path}: {reason}; free some space or name another folder, then run the "
                        "same command again: finished runs are kept") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def lock(path: Path, **options) -> FileLock:
    """A lock that ends when its holder dies; with ``timeout=0`` it is had at once or not at all."""
    return FileLock(path, **options) if _has_locks(path.parent) else SoftFileLock(path.with_suffix(".held"), **options)


@cache
def _has_locks(folder: Path) -> bool:
    """Whether the folder's file system has locks, which the operating system frees; where it has none, that is said."""
    try:
        with FileLock(folder / ".dnm-lock-probe", fallback_to_soft=False):
            return True
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise DiskError(f"cannot write to {folder}: {error.strerror}; name another folder") from None
        warnings.warn(f"{folder}: {error.strerror}; goes on with files as locks, and one that another machine's killed "
                      "process left has to be deleted", stacklevel=4)
        return False
    finally:
        with contextlib.suppress(OSError):
            (folder / ".dnm-lock-probe").unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict, state: dict) -> None:
    """One safetensors file with ``state`` (JSON) and a checksum of every tensor in its header."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    checksums = {name: _checksum(tensor) for name, tensor in tensors.items()}
    header = {"format": "pt", "state": json.dumps(state), "checksums": json.dumps(checksums)}
    _replace(path, lambda temporary: save_file(tensors, temporary, header))


def load_tensors(path: Path) -> tuple[dict, dict]:
    """Tensors and state of a file of `save_tensors`; a `DnmError` where it is damaged."""
    from safetensors import safe_open

    with mendable(f"{path} is corrupt ({{}}): delete it and run the same command again to start this run from its "
                  "beginning"):
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state, checksums = json.loads(header["state"]), json.loads(header["checksums"])
        if checksums != {name: _checksum(tensor) for name, tensor in tensors.items()}:
            raise ValueError("checksums differ")
        return tensors, state


def _checksum(tensor) -> int:
    import torch

    return zlib.crc32(tensor.flatten().view(torch.uint8).numpy()) if tensor.numel() else 0
