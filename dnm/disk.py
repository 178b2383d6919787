"""What is kept on disk: JSON and safetensors with checksums, written whole or not at all."""

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


def unwritable(path: Path, error: Exception) -> DiskError:
    """What to say of a file that could not be written."""
    why = getattr(error, "strerror", None) or str(error)
    return DiskError(f"cannot write {path}: {why}; free some space or name another folder, then run the same command "
                     "again: what is finished is kept")


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a file beside ``path`` and rename: a reader, or a crash, never meets half a file."""
    _replace(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, content: dict, **options) -> None:
    """Write ``content`` and a checksum of it; ``options`` are those of `json.dumps`."""
    write_atomically(path, (json.dumps(sealed(content), **options) + "\n").encode())


def read_json(path: Path) -> dict:
    """The content of a file of `write_json`; a `ValueError` where it is damaged or no JSON object."""
    try:
        return unsealed(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sealed(content: dict) -> dict:
    """The content as JSON has it, and a checksum of it, for `unsealed`."""
    content = json.loads(json.dumps(content))
    return content | {"checksum": zlib.crc32(json.dumps(content, sort_keys=True).encode())}


def unsealed(content: dict) -> dict:
    """What was `sealed`, or written before there were checksums; a `ValueError` where it has changed."""
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    bare = {name: value for name, value in content.items() if name != "checksum"}
    if content not in (bare, sealed(bare)):
        raise ValueError("its checksum is another")
    return bare


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
        raise unwritable(path, error) from None
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
    header = {"format": "pt", "state": json.dumps(sealed(state)), "checksums": json.dumps(checksums)}
    _replace(path, lambda temporary: save_file(tensors, temporary, header))


def load_tensors(path: Path, way_out: str) -> tuple[dict, dict]:
    """Tensors and state of a file of `save_tensors`; a `DnmError` that ends in ``way_out`` where it is damaged."""
    from safetensors import safe_open

    with mendable(f"{path} is corrupt ({{}}): {way_out}"):
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state, checksums = unsealed(json.loads(header["state"])), json.loads(header["checksums"])
        if checksums != {name: _checksum(tensor) for name, tensor in tensors.items()}:
            raise ValueError("checksums differ")
        return tensors, state


def _checksum(tensor) -> int:
    import torch

    return zlib.crc32(tensor.flatten().view(torch.uint8).numpy()) if tensor.numel() else 0
