"""Files from strangers: nothing in them runs, leaves its folder or takes any memory; a terminal shows them as characters."""

import ast
import contextlib
import gzip
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import pytest

from dnm.classify.estimator import DNMClassifier
from dnm.classify.stream import predict_file
from dnm.cli import main
from dnm.config import RunConfig
from dnm.data.datasets import load_dataset
from dnm.data.files import chunks, read_table
from dnm.disk import sealed
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.notebook.batch import run_batch
from dnm.plots import plain
from dnm.runs.store import RunStore, load_files

ROOT = Path(__file__).resolve().parents[1]
NOUNS = ["tea", "bus", "sea", "hall", "loaf", "cup", "road", "lamp", "door", "tree"]
ROWS = "".join(f"the {noun} was {word} {i},{label}\n" for i in range(4) for noun in NOUNS for word, label in (("fine", 1), ("poor", 0)))


# ---------------------------------------------------------------- a terminal

ESCAPES = "\x1b[31m", "\x1b]0;title\x07", "\r", "\b\b", "\x9b2J", "\x7f", "\x0c", "\u202e"


def unseen(text: str) -> set[str]:
    return {c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or c == "\u202e"}


def test_no_output_of_the_command_line_moves_the_cursor(tmp_path, capsys, tiny_models, monkeypatch):
    """Sentences, labels, columns, the file's and the model's name hold escapes; all is shown, as Python writes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dnm.plots.page.chromium", lambda: None)
    names = [f"te{ESCAPES[0]}xt", f"la{ESCAPES[1]}bel"]
    rows = [(f"{NOUNS[i % 10]} {ESCAPES[i % 8]} {i}", f"{'good' if i % 2 else 'bad'}{ESCAPES[i % 2]}!") for i in range(80)]
    pd.DataFrame([*rows, ("", "x")], columns=names).to_csv(file := f"a{ESCAPES[0]}{ESCAPES[3]}{ESCAPES[7]}.csv", index=False, quoting=1)
    columns, model = ["--text", names[0], "--label", names[1]], f"m{ESCAPES[4]}{ESCAPES[0]}"
    small = ["--encoder", str(tiny_models["bert"]), "--steps", "2"]
    commands = {
        "fit": ["fit", file, "--out", model, *columns, *small], "again": ["fit", file, "--out", model, *columns, *small, "--method", "plain"],
        "guessed": ["fit", file, "--out", model, *small], "predict": ["predict", model, *(text for text, _ in rows[:8])],
        "file": ["predict", model, file, "--text", names[0]], "compare": ["compare", file, *columns, *small, "--methods", "logreg", "plain",
                                                                          "--folds", "2", "--repeats", "1", "--jobs", "1", "--out", model + "c"],
        "train": ["train", "--dataset", file, "--text-column", names[0], "--label-column", names[1], "--profile", "smoke", "--seeds", "0",
                  "--methods", "plain", "--runs", model + "r", "--eval-every", "2", *small],
        "report": ["report", model + "r", "--out", model + "o"], "column": ["fit", file, "--text", ESCAPES[0]], "none": ["fit", ESCAPES[1]],
        "option": ["list", f"--{ESCAPES[0]}"], "command": [ESCAPES[0]], "model": ["predict", ESCAPES[0], "text"], "data": ["train", "--dataset", ESCAPES[2]]}
    for name, command in commands.items():
        code = main(command)
        out, err = capsys.readouterr()
        bar = re.sub(r"\r(?=[^\n]*(%\||\d+it |\d+/\d+|step|training|predicting)|\s*(\r|\n|$))", "", err)
        assert (unseen(out), unseen(bar)) == (set(), set()), name
        assert code == (2 if name in ("guessed", "column", "none", "option", "command", "model", "data") else 0), err
        assert "\\" in out + err, name
    print(f"{len(commands)} commands, {len(ESCAPES)} escapes")


def test_bars_keep_their_carriage_return_and_text_does_not():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), plain.terminal():
        print("a", "\rb\r\n", "\x1b[A", "ü\tß")
        print("\r 50%|", file=sys.stderr, end="")
        print("\x1b[A", file=sys.stderr, end="")
        print("note \x1b[A\r", file=sys.stderr)
    assert out.getvalue() == "a \\x0db\n \\x1b[A ü\tß\n" and err.getvalue() == "\r 50%|\x1b[Anote \\x1b[A\\x0d\n"


@pytest.mark.parametrize("text, expected", [
    ("<b>&lt;", r"\<b>\&lt;"), ("a|b`c`", r"a\|b\`c\`"), ("[a](javascript:x)", r"[a\](javascript:x)"), ("_a_ b_c 2 < 3", r"\_a\_ b_c 2 < 3"),
    ("two\nlines\x1b", r"two lines\\x1b"), ("+1.2 [0.3, 2.0]", "+1.2 [0.3, 2.0]"), ("$x$ **b** ~c~", r"\$x\$ \*\*b\*\* \~c\~")])
def test_markdown_of_a_text_is_the_text(text, expected):
    assert plain.markdown(text) == expected


# ---------------------------------------------------------------- nothing runs

RUNS_CODE = {"pickle", "cPickle", "dill", "marshal", "shelve", "cloudpickle"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "joblib.load", "np.load", "numpy.load", "yaml.load", "pd.read_pickle",
         "torch.jit.load", "os.system"}
ALLOWED = {("notebook/batch.py", "exec"), ("notebook/batch.py", "compile")}  # the study's own notebooks


def test_nothing_that_can_run_what_it_reads():
    found = set()
    for path in (ROOT / "dnm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            where = path.relative_to(ROOT / "dnm").as_posix()
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                found |= {(where, name) for name in names if name.partition(".")[0] in RUNS_CODE}
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
                found.add((where, ast.unparse(node.func)))
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code", "shell"):
                found |= {(where, node.arg)} if ast.unparse(node.value) != "False" else set()
    assert found == ALLOWED


@pytest.fixture
def bomb(tmp_path):
    """A pickle that makes a file when it is loaded, and whether it has."""
    made = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(made),)

    content = pickle.dumps(Bomb())
    pickle.loads(content)
    assert made.exists()  # it would
    made.rmdir()
    return content, made


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny):
    """A saved model."""
    from dnm.training import fit

    folder = tmp_path_factory.mktemp("kept") / "model"
    DNMClassifier.of(fit(tiny(method="plain", steps=1))[1]).save(folder)
    return folder


def resealed(folder: Path) -> None:
    """The checksums that a stranger would put there, so that what is behind them is tried."""
    file = folder / "config.json"
    about = json.loads(file.read_text())
    own = {name: value for name, value in about["dnm"].items() if name != "checksum"}
    own["files"] = {name: zlib.crc32((folder / name).read_bytes()) for name in own["files"]}
    file.write_text(json.dumps(about | {"dnm": sealed(own)}))


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["head.safetensors", "encoder/model.safetensors", "config.json", "encoder/config.json", "encoder/tokenizer.json"])
def test_a_pickle_in_a_saved_model_is_refused(kept, tmp_path, bomb, name):
    shutil.copytree(kept, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(bomb[0])
    with pytest.raises(DnmError) as error:
        DNMClassifier.load(tmp_path / "model").predict(["a sentence"])
    assert one_line(error) and not bomb[1].exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json"])
def test_a_pickle_in_an_encoder_is_refused(tiny_models, tmp_path, bomb, name):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_models["bert"], folder)
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(bomb[0])
    with pytest.raises(DnmError) as error:
        build_encoder(RunConfig.create(encoder=str(folder)))
    assert one_line(error) and not bomb[1].exists()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet", "xlsx", "csv.gz", "parquet.gz"])
def test_a_pickle_as_data_is_refused(tmp_path, bomb, suffix, capsys):
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(gzip.compress(bomb[0]) if suffix.endswith("gz") else bomb[0])
    for read in (load_dataset, lambda name: list(chunks(name))):
        with contextlib.suppress(DnmError):  # of one's columns none is named: text it may be
            read(str(path))
    assert main(["fit", str(path), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 2 and not bomb[1].exists()


def test_a_pickle_as_checkpoint_or_result_is_refused(tmp_path, bomb, tiny, capsys):
    from dnm import checkpoints
    from dnm.runs.store import load_files

    (tmp_path / "x.checkpoint.safetensors").write_bytes(bomb[0])
    with pytest.raises(DnmError) as error:
        checkpoints.load(tmp_path / "x.checkpoint.safetensors", [], None)
    assert "is corrupt" in one_line(error)
    store, config = RunStore(tmp_path / "runs"), tiny(method="plain")
    store.folder.mkdir()
    store.result_path(config).write_bytes(bomb[0])
    with pytest.warns(UserWarning, match="cannot be read"):
        assert store.stored(config, warn=True) is None and load_files(store.folder) == []
    assert not bomb[1].exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("known", [True, False])
def test_code_beside_a_model_is_not_run(tiny_models, tmp_path, monkeypatch, file, known):
    folder, made = tmp_path / "encoder", tmp_path / "ran"
    shutil.copytree(tiny_models["bert"], folder)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(made)!r})\nfrom transformers import BertConfig as C, BertModel as M, BertTokenizer as T\n")
    about = json.loads((folder / file).read_text())
    about["auto_map"] = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    if not known:
        about |= {"model_type": "evil", "tokenizer_class": "EvilTokenizer"}
    (folder / file).write_text(json.dumps(about))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    try:
        build_encoder(RunConfig.create(encoder=str(folder)))
    except DnmError as error:
        assert "\n" not in str(error)
    assert not made.exists()


# ---------------------------------------------------------------- names stay in their folder

def test_weights_of_another_folder_are_not_read(tiny_models, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_models["bert"], folder)
    for name in ("../other.safetensors", "/other.safetensors", "sub/other.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
        with pytest.raises(DnmError, match="which is no file beside it"):
            build_encoder(RunConfig.create(encoder=str(folder)))


def test_a_data_sets_name_leads_nowhere_else(tmp_path, monkeypatch):
    """``...csv`` has the stem ``..``."""
    written = []
    monkeypatch.setattr("dnm.notebook.batch.train_all", lambda jobs, store: {})
    monkeypatch.setattr("dnm.notebook.batch.execute_all", lambda jobs: written.extend(target for _, target, _ in jobs) or [])
    monkeypatch.setattr("dnm.notebook.batch._frame", lambda *_: None)
    monkeypatch.setattr("dnm.notebook.batch.write_report", lambda executed, runs, target, about: written.append(target) or target)
    for name in ("...csv", "..json", "....tsv"):
        (tmp_path / name).write_text("text,label\n" + ROWS)
        run_batch(["07"], [str(tmp_path / name)], tmp_path / "out", {})
    assert len(written) == 6 and all(path.resolve().parent.parent == tmp_path / "out" for path in written)


def test_a_workbooks_members_are_not_unpacked(tmp_path):
    pd.DataFrame({"text": ["a b", "c d"] * 20, "label": [1, 0] * 20}).to_excel(path := tmp_path / "a.xlsx", index=False)
    with zipfile.ZipFile(path, "a") as book:
        book.writestr("../../evil.txt", "evil")
        book.writestr("/tmp/dnm-evil.txt", "evil")
    assert len(read_table(path).texts) == 40
    assert {p.name for p in tmp_path.iterdir()} == {"a.xlsx"} and not (tmp_path.parents[1] / "evil.txt").exists()


@pytest.mark.parametrize("kind", ["fifo", "zero", "loop", "folder", "socket"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, capsys, monkeypatch, kept, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.csv"
    {"fifo": lambda: os.mkfifo(path), "zero": lambda: path.symlink_to("/dev/zero"), "loop": lambda: path.symlink_to(path),
     "folder": path.mkdir, "socket": lambda: __import__("socket").socket(1).bind("x.csv")}[kind]()
    for command in (["fit", "x.csv", "--out", "out"], ["compare", "x.csv", "--out", "out"], ["predict", str(kept), "x.csv"],
                    *[["train", "--dataset", "x.csv", "--runs", "runs"]] * (kind != "loop")):
        assert main(command) == 2, command
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and error[0].startswith("error: ") and re.search("x.csv|cannot read zero", error[0])
    with pytest.raises(DnmError):
        load_dataset(str(path))


# ---------------------------------------------------------------- no more memory than there is

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30))
{prepare}
def peak(): return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
before = peak()
{body}
print("MB", peak() - before)
"""


def limited(body: str, prepare: str = "", seconds: float = 60) -> tuple[str, int]:
    """What a process prints that may not take more than 10 GB, and by how many MB its memory grew."""
    done = subprocess.run([sys.executable, "-c", LIMITED.format(body=body, prepare=prepare)], capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-2000:]
    told, _, grown = done.stdout.rpartition("MB ")
    return told.strip(), int(grown)


def packed(path: Path, *parts: tuple[bytes, int]) -> Path:
    with gzip.open(path, "wb", 1) as file:
        for part, times in parts:
            for _ in range(times):
                file.write(part)
    return path


MEGABYTE = 1_000_000
BOMBS = {
    "field.csv.gz": lambda p: packed(p, (b"text,label\na,1\n", 1), (b"a" * MEGABYTE, 100), (b",2\n", 1)),
    "quoted.csv.gz": lambda p: packed(p, (b'text,label\na,1\n"', 1), (b"a b\n" * MEGABYTE, 25), (b'",2\n', 1)),
    "blank.csv.gz": lambda p: packed(p, (b"text,label\n", 1), (b"\n" * MEGABYTE, 100)),
    "line.jsonl.gz": lambda p: packed(p, (b'{"label":1,"text":"', 1), (b"a" * MEGABYTE, 100), (b'"}\n', 1)),
    "array.json.gz": lambda p: packed(p, (b"[", 1), (b"[]," * MEGABYTE, 30), (b"[]]", 1)),
    "sparse.csv": lambda p: (p.write_bytes(b"text,label\na,1\n"), os.truncate(p, 1000 * MEGABYTE)),
    "plain.csv": lambda p: p.write_bytes(b"text,label\na,1\n" + b"a" * 8 * MEGABYTE + b",2\n"),
    "open.csv": lambda p: p.write_bytes(b'text,label\na,1\n"' + b"a b\n" * 3 * MEGABYTE),
    "long.jsonl": lambda p: p.write_text(json.dumps({"text": "a" * 8 * MEGABYTE, "label": 1}) + "\n"),
    "wide.csv": lambda p: p.write_text("text,label" + ",c" * 16_000 + "\n" + "a,1\nb,2\n" * 2_000),
    "wider.csv": lambda p: p.write_text("text,label" + ",c" * 20_000 + "\n" + "a,1\nb,2\n"),
    "keys.jsonl": lambda p: p.write_text("".join(json.dumps({"text": f"t {i}", "label": i % 2, f"k{i}": 1}) + "\n" for i in range(20_000))),
    "sheet.xlsx": lambda p: sheet(p, b'<row r="4"><c r="A4" t="inlineStr"><is><t>' + b"a" * 60 * MEGABYTE + b"</t></is></c></row>"),
    "rows.xlsx": lambda p: sheet(p, b'<row r="99999999999"><c r="A99999999999"><v>1</v></c></row>'),
    "dictionary.parquet": lambda p: parquet(p, ["a" * 4 * MEGABYTE, "b"], 600),
    "giant.parquet": lambda p: parquet(p, ["a" * 100 * MEGABYTE, "b"], 1)}
FOR_ONCE = ("wide.csv", "keys.jsonl")  # too much to be read at once, not to be predicted


def sheet(path: Path, row: bytes) -> None:
    pd.DataFrame({"text": ["a", "b"], "label": [1, 2]}).to_excel(path, index=False)
    with zipfile.ZipFile(path) as book:
        members = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in members.items():
            book.writestr(name, content.replace(b"</sheetData>", row + b"</sheetData>"))


def parquet(path: Path, texts: list[str], times: int) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    places = pyarrow.array([*range(len(texts))] * times, pyarrow.int8())
    column = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(texts))
    write_table(pyarrow.table({"text": column, "label": places}), path, compression="zstd")


def test_bombs_of_every_kind_end_in_one_line_within_bounded_memory(tmp_path):
    """`dnm fit` and `load_dataset` read with `read_table`, `dnm predict` with `chunks`."""
    for name, make in BOMBS.items():
        make(tmp_path / name)
    body = f"""
from pathlib import Path
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    for read in (read_table, lambda path: [len(table.texts) for table in chunks(path, size=2000)] if path.name not in {FOR_ONCE} else None):
        try:
            print(path.name, "read", read(path))
        except DnmError as error:
            print(path.name, "|", str(error).replace("\\n", "NEWLINE"))
"""
    told, grown = limited(body, "from dnm.data.files import read_table, chunks\nfrom dnm.errors import DnmError")
    lines = [line for line in told.splitlines() if not line.endswith("read None")]
    print(told)
    assert len(lines) == 2 * len(BOMBS) - len(FOR_ONCE) and grown < 2500
    for line in lines:
        name, told = line.split(" | ")
        assert name in told and "NEWLINE" not in line
        assert re.search("characters|times its size|quotation marks|columns|rows", told), line
    print(grown, "MB")


def lying(header: bytes | dict, body: bytes = b"", size: int | None = None) -> bytes:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + body


def tensor(shape=(2, 2), begin=0, end=16, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


LIES = {"a header of 2**63": lying(b"{}", size=2**63), "a header beyond the file": lying(b"{}", size=10**6), "no JSON": lying(b"[" * 50_000),
        "beyond the file": lying({"a": tensor((10**6, 10**6), end=4 * 10**12)}, bytes(16)), "shape": lying({"a": tensor((10**9,))}, bytes(16)),
        "overlap": lying({"a": tensor(), "b": tensor(begin=8, end=24)}, bytes(24)), "dtype": lying({"a": tensor(dtype="OBJECT")}, bytes(16)),
        "backwards": lying({"a": tensor(begin=16, end=0)}, bytes(16)), "negative": lying({"a": tensor((-2, -2))}, bytes(16)),
        "another model": lying({"a": tensor()}, bytes(16))}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(kept, tiny_models, tmp_path, lie):
    shutil.copytree(kept, tmp_path / "model")
    shutil.copytree(tiny_models["bert"], tmp_path / "encoder")
    for name in ("head.safetensors", "encoder/model.safetensors"):
        before = (tmp_path / "model" / name).read_bytes()
        (tmp_path / "model" / name).write_bytes(LIES[lie])
        with pytest.raises(DnmError) as error:
            DNMClassifier.load(tmp_path / "model")
        assert one_line(error)
        (tmp_path / "model" / name).write_bytes(before)
    (tmp_path / "encoder" / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(DnmError) as error:
        build_encoder(RunConfig.create(encoder=str(tmp_path / "encoder")))
    assert one_line(error)


HUGE = {"hidden_size": 4 * 10**9, "max_position_embeddings": 10**12, "vocab_size": 10**11, "intermediate_size": 10**10, "num_hidden_layers": 10**9,
        "type_vocab_size": 10**10}


def test_a_config_that_asks_for_any_memory_is_refused_before_it_is_taken(kept, tiny_models, tmp_path):
    for name, value in HUGE.items():
        for folder, source in ((tmp_path / f"encoder-{name}", tiny_models["bert"]), (tmp_path / f"model-{name}", kept)):
            shutil.copytree(source, folder)
            file = folder / "encoder" / "config.json" if source == kept else folder / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
            if source == kept:
                resealed(folder)
    body = f"""
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        build_encoder(RunConfig.create(encoder=str(path))) if path.name.startswith("encoder") else DNMClassifier.load(path)
        print(path.name, "read")
    except DnmError as error:
        print(path.name, "|", str(error).replace("\\n", "NEWLINE"))
"""
    told, grown = limited(body, "from pathlib import Path\nfrom dnm.classify.estimator import DNMClassifier\nfrom dnm.config import RunConfig\n"
                                "from dnm.encoders import build_encoder\nfrom dnm.errors import DnmError\nimport transformers.models.bert.modeling_bert")
    print(told, grown, "MB")
    assert len(told.splitlines()) == 2 * len(HUGE) and grown < 500
    assert all(" | " in line and "NEWLINE" not in line for line in told.splitlines())


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deeply_nested_json_is_one_line(kept, tiny_models, tmp_path, tiny, depth, brackets):
    opening, closing = brackets[:-1], brackets[-1]
    deep = opening * depth + "1" + closing * depth
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(f'{{"text": "a b", "label": 1, "x": {deep}}}\n' * 30)
        for read in (read_table, lambda path: list(chunks(path)), lambda path: load_dataset(str(path))):
            with pytest.raises(DnmError) as error:
                read(tmp_path / name)
            assert one_line(error)
    for folder, name in (("model", "config.json"), ("model", "encoder/config.json"), ("encoder", "config.json"), ("encoder", "tokenizer.json")):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        shutil.copytree(kept if folder == "model" else tiny_models["bert"], tmp_path / folder)
        (tmp_path / folder / name).write_text(deep)
        if name == "encoder/config.json":
            resealed(tmp_path / folder)
        with pytest.raises(DnmError) as error:
            DNMClassifier.load(tmp_path / folder) if folder == "model" else build_encoder(RunConfig.create(encoder=str(tmp_path / folder)))
        assert one_line(error)
    with pytest.raises(DnmError):
        from dnm.classify import saved
        (tmp_path / "model" / "config.json").write_text(deep)
        saved.taken(tmp_path / "model")
    store, config = RunStore(tmp_path / "runs"), tiny()
    store.folder.mkdir()
    store.result_path(config).write_text(deep)
    assert store.stored(config) is None
    with pytest.warns(UserWarning, match="cannot be read"):
        assert not load_files(store.folder)
    pd.DataFrame({"text": ["the tea was fine", "the bus was poor"]}).to_csv(tmp_path / "new.csv")
    for name in ("new.predicted.csv.part", "new.predicted.csv.part.json"):
        (tmp_path / name).write_text(deep)
    assert predict_file(DNMClassifier.load(kept), tmp_path / "new.csv", tmp_path / "new.predicted.csv")["before"] == 0

