"""The project itself: one set of versions, a light import, notebooks that keep the conventions."""

import ast
import graphlib
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from functools import partial
from pathlib import Path

import pytest
import yaml

from dnm.data.pretrained import TRIED

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {canonical(name): version for name, version in
            (line.split("==") for line in lines if line and not line.startswith("#"))}


def test_every_requirement_is_pinned_to_a_version_it_admits():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert len(wanted) > 10
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins()[canonical(requirement.name)]), requirement


def test_what_the_module_imports_is_declared_and_the_pinned_transformers_is_the_one_that_errors_name():
    """Without the extras' packages, which are imported where they are asked for."""
    from importlib.metadata import packages_distributions

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonical(re.split(r"[<>=]", wanted)[0]) for wanted in project["dependencies"]}
    extras = {"distributed", "setfit", "sentence-transformers", "accelerate"}
    imported = {name.split(".")[0] for path in (ROOT / "dnm").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
                for name in ([node.module] if isinstance(node, ast.ImportFrom) else
                             [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])}
    owners = packages_distributions()
    missing = {name for name in imported - set(sys.stdlib_module_names) - {"dnm"}
               if not {canonical(owner) for owner in owners.get(name, [name])} & (declared | extras)}
    assert len(imported) > 40 and missing == set()
    assert pins()["transformers"] == TRIED


def test_the_installed_versions_are_the_pinned_ones():
    from importlib.metadata import distributions

    installed = {canonical(d.name): d.version.split("+")[0] for d in distributions()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name = canonical(re.split(r"[<>=]", requirement)[0])
        assert installed[name] == pins()[name]


def test_conda_make_and_pip_install_the_same():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, package = conda["dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    assert pip == "pip" and python.startswith("python=3.")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, python.split("=")[1].split("."))) >= tuple(map(int, requires.strip(">=").split(".")))
    assert package["pip"] == ["--constraint constraints.txt", "--editable .[bench,test]"]
    assert "--constraint constraints.txt --editable '.[bench,test]'" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_make_lab_answers_the_question_about_news_where_this_jupyterlab_looks(monkeypatch):
    from jupyterlab.commands import get_app_dir

    monkeypatch.delenv("JUPYTERLAB_DIR", raising=False)
    text = (ROOT / "Makefile").read_text()
    assert (Path(sys.prefix) / re.search(r"^LAB := \.venv/(.+)$", text, flags=re.M)[1]).resolve() == Path(get_app_dir()) / "settings"
    [(plugin, values)] = json.loads(re.search(r"echo '(.+)' > \$\(LAB\)/overrides\.json", text)[1]).items()
    schema = json.loads((Path(get_app_dir()) / "schemas" / (plugin.replace(":", "/") + ".json")).read_text())
    assert values["fetchNews"] in [kind["const"] for kind in schema["properties"]["fetchNews"]["oneOf"]]


# ---------------------------------------------------------------- what an import costs

def python(code: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def least_seconds(*arguments: str) -> float:
    """Processor time of Python with these arguments, the least of five: what else runs on the machine does not count."""
    found = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        found.append(used.ru_utime + used.ru_stime)
    return min(found)


def test_import_is_light_and_help_is_quick():
    heavy = "[m for m in ('torch', 'numpy', 'transformers', 'plotly', 'pandas') if m in sys.modules]"
    assert python(f"import sys, dnm; print({heavy})") == "[]"
    assert python(f"import sys, dnm, dnm.cli, dnm.config, dnm.methods; print({heavy})") == "[]"
    assert least_seconds("-c", "import dnm") - least_seconds("-c", "pass") < 0.1
    assert least_seconds("-m", "dnm", "--help") < 0.5


def test_the_face_offers_what_users_need():
    import dnm
    from dnm.classify.estimator import DNMClassifier
    from dnm.config import RunConfig
    from dnm.data.datasets import load_dataset
    from dnm.methods import METHODS
    from dnm.runs.plan import grid
    from dnm.runs.scheduler import run_all
    from dnm.runs.store import RunStore
    from dnm.training import fit

    behind = dict(RunConfig=RunConfig, METHODS=METHODS, load_dataset=load_dataset, fit=fit, grid=grid, run_all=run_all,
                  RunStore=RunStore, DNMClassifier=DNMClassifier, Classifier=DNMClassifier)
    assert behind.keys() <= set(dir(dnm)) and all(getattr(dnm, name) is value for name, value in behind.items())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dnm.nothing  # noqa: B018


def test_threads_spin_only_for_a_moment_unless_the_user_says_otherwise():
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    code = f"import dnm, os; print(*(os.environ[name] for name in {names}))"
    bare = {name: value for name, value in os.environ.items() if name not in names}
    assert python(code, bare) == "1000 1"
    assert python(code, bare | {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "infinite"}) == "7 infinite"


def test_the_training_path_needs_neither_datasets_nor_plotly_nor_papermill():
    python("import sys\nfor name in ('datasets', 'plotly', 'papermill', 'pandas', 'jupyterlab', 'IPython'):\n"
           "    sys.modules[name] = None\n"
           "import dnm.runs.scheduler, dnm.runs.fleet, dnm.training, dnm.model, dnm.classify.saved, dnm.classify.estimator, dnm.bench.race\n"
           "from dnm.data.datasets import load_dataset\nload_dataset('builtin')\n")


# ---------------------------------------------------------------- the house

FILES = {".".join(path.relative_to(ROOT / "dnm").with_suffix("").parts): path for path in sorted((ROOT / "dnm").rglob("*.py"))}
WINGS = {"data", "related", "classify", "runs", "plots", "study", "notebook", "bench"}
# For people's own texts, beside the wing `classify`.
OWN_TEXTS = {"data.files", "data.formats", "data.separated", "data.pretrained", "study.own", "study.compare", "notebook.table",
             "bench.accuracy"}
GROUND = {"errors", "disk", "methods", "config"}  # of the root, what even `data` stands on
# From where to where imports may go; a name that is no place is a file.
MAY_IMPORT = {
    "ground": {"ground"}, "data": {"ground", "data"}, "root": {"ground", "data", "root", "related"},
    "related": {"ground", "data", "root", "related"},
    "classify": {"ground", "data", "root", "plots", "classify"},
    "plots": {"methods", "selection", "plots"}, "runs": {"ground", "data", "root", "classify", "runs", "plots"}}
MAY_IMPORT |= {wing: MAY_IMPORT["runs"] | {wing} for wing in ("study", "bench")}
MAY_IMPORT["bench"] |= {"study"}  # for its statistics
MAY_IMPORT["notebook"] = MAY_IMPORT["runs"] | {"study", "notebook"}
MAY_IMPORT["cli"] = MAY_IMPORT["notebook"] | {"bench"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = set()  # its names are loaded when they are asked for


def place(name: str) -> str:
    first = name.partition(".")[0]
    return first if first in WINGS | {"cli", "__main__", "__init__"} else "ground" if first in GROUND else "root"


def imported(name: str) -> set[str]:
    """The files of the project that a file of it imports, wherever in it that stands."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "dnm"}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            if (node.module or "").partition(".")[0] == "dnm":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {found_name.removeprefix("dnm.") for found_name in found} - {"__version__"}
    files = {n if n in FILES else n.rpartition(".")[0] for n in names}
    assert files <= set(FILES), f"{name} imports {files - set(FILES)}: no file of the project"
    return files


def lines(*names: str) -> int:
    return sum(len(FILES[name].read_text().splitlines()) for name in names)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way_and_files_stay_small(name):
    for other in imported(name):
        assert {place(other), other} & MAY_IMPORT[place(name)], f"{name} imports {other}"
    assert lines(name) <= 330
    # code within text, such as a script for another process or a docstring's example, names what there is
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, what in re.findall(r"from dnm\.?([\w.]*) import (\w+)", node.value):
                assert {f"{module}.{what}".strip("."), module} & set(FILES) or (not module and hasattr(__import__("dnm"), what)), node.value


def test_no_imports_go_in_circles():
    graphlib.TopologicalSorter({name: imported(name) - {name} for name in FILES}).prepare()


def test_the_house_stays_small():
    root = [name for name in FILES if "." not in name]
    assert lines(*root) <= 2270  # 1,900 without the related systems and the laboratory
    assert lines("methods", "selection", "mixing", "heads", "model", "training") <= 865  # 800 without them
    own = [name for name in FILES if name.startswith("classify.") or name in OWN_TEXTS]
    assert lines(*own) <= 2425  # 2,270 without what damaged and hostile files, and newer versions, need
    assert lines(*{*FILES} - {*own}) <= 7600  # 5,600 is wanted, 700 of the related systems, 200 of runs by size


def test_every_wing_opens_with_a_paragraph_and_nothing_else():
    assert {path.parent.name for path in (ROOT / "dnm").glob("*/*.py")} == WINGS
    for wing in WINGS:
        tree = ast.parse(FILES[f"{wing}.__init__"].read_text())
        assert len(tree.body) == 1 and len(ast.get_docstring(tree)) > 80, wing


# ---------------------------------------------------------------- what is installed

def test_the_wheel_holds_every_module_and_what_pages_need(tmp_path):
    """Built from a copy of the sources, installed where nothing else of the project is, and imported from elsewhere."""
    source, home = tmp_path / "source", tmp_path / "venv"
    shutil.copytree(ROOT / "dnm", source / "dnm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run = partial(subprocess.run, check=True, cwd=tmp_path, capture_output=True, text=True)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source])
    run([sys.executable, "-m", "venv", "--without-pip", home])
    wheel, interpreter = next(tmp_path.glob("dnm-*.whl")), home / "bin" / "python"
    assert {"dnm/data/corpus.json", "dnm/plots/page.css", "dnm/plots/page.js"} <= set(zipfile.ZipFile(wheel).namelist())
    run([sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", wheel])
    # The dependencies are those at hand. Path files inside of a path file's folder are not read, so the checkout is not found.
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "elsewhere").mkdir()
    code = ("import dnm, importlib, pkgutil\nprint(dnm.__file__)\n"
            "for found in pkgutil.walk_packages(dnm.__path__, 'dnm.'):\n"
            "    if found.name != 'dnm.__main__':\n        print(importlib.import_module(found.name).__name__)\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    first, *found = run([interpreter, "-c", code], cwd=tmp_path / "elsewhere", env=environment).stdout.split()
    assert Path(first).is_relative_to(home)
    expected = {f"dnm.{name}".removesuffix(".__init__") for name in FILES if name not in ("__init__", "__main__")}
    assert set(found) == expected
    listed = run([home / "bin" / "dnm", "list"], cwd=tmp_path / "elsewhere", env=environment).stdout
    assert listed.startswith("methods:")


def test_an_editable_install_is_a_plain_path():
    from importlib.metadata import distribution

    paths = [file for file in distribution("dnm").files if file.name.startswith("__editable__")]
    if not paths:
        pytest.skip("the package is not installed in editable mode")
    assert [path.suffix for path in paths] == [".pth"] and Path(paths[0].read_text().strip()).resolve() == ROOT


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git checkout")
def test_git_ignores_no_file_of_the_project():
    files = [path.relative_to(ROOT).as_posix() for folder in ("dnm", "tests", "notebooks") for path in (ROOT / folder).rglob("*")
             if path.suffix in (".py", ".ipynb", ".md") and ".ipynb_checkpoints" not in path.parts]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True)
    assert (ignored.returncode, ignored.stdout) == (1, "")
    outputs = subprocess.run(["git", "check-ignore", "--no-index", "runs/x.json", "data/subj/all.jsonl", "build/x", "dnm.egg-info/x",
                              ".venv/x", "dnm/__pycache__/x"], cwd=ROOT, capture_output=True, text=True)
    assert len(outputs.stdout.split()) == 6


def test_every_kept_run_is_read_and_is_the_run_that_its_hash_names():
    from dnm.config import RunConfig
    from dnm.runs.results import frame, load
    from dnm.runs.store import load_files

    folder = ROOT / "data" / "results"
    holds_runs = {path.name for path in folder.glob("*.json") if not path.name.startswith("bench-")}
    kept = load_files(folder)
    assert {name for name, *_ in kept} == holds_runs and len(holds_runs) > 5
    for name, command, records in kept:
        assert command.startswith("dnm ") and records, name
        for record in records:
            config = RunConfig(**record["config"])
            assert config.hash == record["hash"] and config.to_dict() == record["config"], (name, record["hash"])
            assert RunConfig.create(**record["config"]) == config
        assert list(frame(records).hash) == [record["hash"] for record in records], name
    assert {record["hash"] for *_, records in kept for record in records} == set(load(folder).hash)


# ---------------------------------------------------------------- notebooks and README

def test_the_citation_is_the_readmes():
    from dnm import __version__

    cited, readme = yaml.safe_load((ROOT / "CITATION.cff").read_text()), (ROOT / "README.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["cff-version"], cited["title"], cited["version"], cited["license"]) == (
        "1.2.0", project["description"], __version__, project["license"])
    paper = cited["preferred-citation"]
    *first, last = [author["family-names"] for author in paper["authors"]]
    told = " ".join(readme.split())
    for part in (paper["title"], f"{', '.join(first)} and {last}", f"COLING {paper['year']}", f"pages {paper['start']} to {paper['end']}"):
        assert part in told, part
    assert paper["collection-title"].endswith("Conference on Computational Linguistics") and "(CITATION.cff)" in readme


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_keep_the_conventions(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert re.match(r"\d\d_[a-z_]+$", path.stem) and path.stat().st_size < 1_500_000
    assert notebook["metadata"]["kernelspec"]["name"] == "python3" and "widgets" not in notebook["metadata"]
    assert len(parameters) == 1
    for line in "".join(parameters[0]["source"]).splitlines():
        assert re.match(r"\w+: (str|int|float|bool|list) = .+  # .+", line) and line.count(" = ") == 1, line
    assert all(len("".join(cell["source"]).splitlines()) <= 25 for cell in code)
    assert "sys.path" not in source and not re.search(r"[\"'](/(home|root|tmp|work)/|[A-Z]:\\)", path.read_text())
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not re.search(r"agrees?: False", "".join(text for output in outputs for text in output.get("text", "")))
    assert outputs and not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert "".join(code[code.index(parameters[0]) + 1]["source"]).startswith("check_injected(In)")
    folded = re.findall(r"<details><summary>Solution</summary>\n\n +```python\n(.+?)\n +```\n(.*?)</details>", source, flags=re.S)
    assert 3 <= len(folded) == source.count("<details>") <= 5
    assert all(answer.strip() for _, answer in folded), "below a solution's code a sentence or two that answer"
    lines = "\n".join(["".join(cell["source"]) for cell in code] + [solution for solution, _ in folded]).splitlines()
    assert not [line for line in lines if len(line) > 100]  # they would run out of the cell at 1280 pixels
    told = "".join(notebook["cells"][notebook["cells"].index(parameters[0]) - 1]["source"])
    assert len(told.splitlines()) > 1, f"{told}: and what is worth changing?"
    assert "## What you can do now" in source and "**The question.**" in source
    assert "**In the paper**" in source and "**Time**" in source and [n for n in range(8) if path.stem.startswith(f"{n:02d}_")]
    figures = [output["data"] for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert figures and all("image/png" in data and "text/html" not in data for data in figures)
    for link in re.findall(r"\]\(([^)#:]+)\)", source):
        assert (path.parent / link).exists(), link


def test_every_commands_options_are_what_its_function_takes():
    from dnm.cli import COMMANDS, parser

    needed = {"run": ["04"], "fit": ["a.csv"], "compare": ["a.csv"], "paper": ["table2"], "predict": ["model", "text"], "fetch": ["subj"]}
    for command, function in COMMANDS.items():
        options = vars(parser().parse_args([command, *needed.get(command, [])]))
        module, name = function.split(":")
        inspect.signature(getattr(importlib.import_module(module), name)).bind(
            **{option: value for option, value in options.items() if option != "command"})


def test_the_readme_is_short_and_names_only_what_exists():
    from dnm.cli import COMMANDS, parser

    readme = (ROOT / "README.md").read_text()
    words = re.findall(r"[^\W\d][\w'-]*", re.sub(r"\]\([^)]+\)", "]", readme))
    assert len(words) < 1000  # what it leaves out, `dnm --help` and the docstrings say
    assert set(re.findall(r"`(?:make) (\w+)", readme)) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for file in re.findall(r"\]\(((?!http|#)[^)]+)\)", readme):
        assert (ROOT / file).exists(), file
    lines = re.findall(r"^dnm (\w.+)$|`dnm (\w.+?)`", readme, flags=re.M)
    assert {"train", "paper", "predict", "fetch", "run", "study", "list"} <= {line.split()[0] for line in map("".join, lines)}
    for line in map("".join, lines):
        assert line.split()[0] in COMMANDS, line
        known = parser()._subparsers._group_actions[0].choices[line.split()[0]]._option_string_actions
        assert set(re.findall(r"--[\w-]+", line)) <= set(known), line
