"""The project itself: one set of versions, a light import, notebooks that keep the conventions."""

import ast
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

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


def test_import_is_light_and_help_is_quick():
    heavy = "[m for m in ('torch', 'numpy', 'transformers', 'plotly', 'pandas') if m in sys.modules]"
    code = f"import sys, dnm, dnm.cli, dnm.config, dnm.methods; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dnm", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


def test_the_training_path_needs_neither_datasets_nor_plotly_nor_papermill():
    blocked = ("import sys\nfor name in ('datasets', 'plotly', 'papermill', 'pandas', 'jupyterlab', 'IPython'):\n"
               "    sys.modules[name] = None\nimport dnm.runs, dnm.training, dnm.models, dnm.bench\n"
               "from dnm.data import load_dataset\nload_dataset('builtin')\n")
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


LAYERS = [{"errors", "__init__"}, {"methods"}, {"config", "corpus"}, {"store", "hub", "files"}, {"data", "selection", "mixing", "packing", "records", "checkpoints"},
          {"heads", "encoders"}, {"batches"}, {"models"}, {"fleet", "rivals"}, {"training"}, {"runs", "bench", "explore", "parameters", "statistics"},
          {"plots", "estimate"}, {"drawings", "sweep"}, {"report", "progress", "widgets"}, {"paper", "study"}, {"claims", "figures"},
          {"paper_report"}, {"cli"}, {"__main__"}]


@pytest.mark.parametrize("path", sorted((ROOT / "dnm").glob("*.py")), ids=lambda p: p.stem)
def test_imports_go_downward_only_and_rooms_stay_small(path):
    floor = next(i for i, rooms in enumerate(LAYERS) if path.stem in rooms)
    below = set().union(*LAYERS[:floor])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "dnm":
            assert {alias.name for alias in node.names if alias.name != "__version__"} <= below
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dnm."):
            room = node.module.split(".")[1]
            assert room in below, f"{path.stem} imports {room}"
    assert len(path.read_text().splitlines()) < 330


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
    assert outputs and not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert "".join(code[code.index(parameters[0]) + 1]["source"]).startswith("check_injected(In)")
    folded = re.findall(r"<details><summary>Solution</summary>\n\n +```python\n", source)
    assert 3 <= len(folded) <= 5 and "## What you can do now" in source and "**The question.**" in source
    assert "**In the paper**" in source and "**Time**" in source and [n for n in range(8) if path.stem.startswith(f"{n:02d}_")]
    figures = [output["data"] for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert figures and all("image/png" in data and "text/html" not in data for data in figures)
    for link in re.findall(r"\]\(([^)#:]+)\)", source):
        assert (path.parent / link).exists(), link


def test_the_readme_names_every_command_and_only_files_that_exist():
    from dnm.cli import COMMANDS, parser

    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert re.search(rf"dnm {command}\b", readme), command
    for target in re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M):
        assert f"make {target}" in readme, target
    for picture in re.findall(r"\]\(((?!http|#)[^)]+)\)", readme):
        assert (ROOT / picture).exists(), picture
    for line in re.findall(r"^(?:python -m )?dnm (.+)$", readme, flags=re.M):
        options = set(re.findall(r"--[\w-]+", line))
        known = parser()._subparsers._group_actions[0].choices[line.split()[0]]._option_string_actions
        assert options <= set(known), line
