"""The parameters of a notebook, checked before anything runs: papermill itself only warns of a name it does not know.

Taught in notebook 00.
"""

import ast
import re
from pathlib import Path

from dnm.errors import DnmError, unknown

KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}
_LINE = re.compile(r"^(\w+): (\w+) = ", flags=re.M)


def declared(notebook: Path) -> dict[str, str]:
    """Names and types of a notebook's parameters, as papermill reads them."""
    import papermill

    return {name: about["inferred_type_name"] for name, about in papermill.inspect_notebook(str(notebook)).items()}


def check(given: dict, known: dict[str, str], where: str) -> None:
    """Refuse a parameter that does not exist or has the wrong type; a `DnmError` names the nearest valid name."""
    for name, value in given.items():
        if name not in known:
            raise unknown(f"parameter of {where}", name, known)
        kind = known[name]
        listed = kind == "list" and isinstance(value, str | int)  # "plain,dnm" and a single value are lists too
        every = name == "n_train" and value == "all"
        right = isinstance(value, KINDS[kind]) or listed or every
        if not right or (isinstance(value, bool) and kind != "bool"):
            raise DnmError(f"{where}: {name} must be {kind}, got {value!r}")


def check_injected(cells: list[str]) -> None:
    """Check what papermill put below a notebook's parameters; ``cells`` is IPython's ``In``, the cells so far.

    Say it in the first cell after the parameters: ``check_injected(In)``.
    """
    place = max((i for i, cell in enumerate(cells[:-1]) if _LINE.search(cell)), default=None)
    if place is None:
        return
    injected = [cell for cell in cells[place + 1:-1] if cell.lstrip().startswith("# Parameters")]
    given = {}
    for statement in ast.parse("\n".join(injected)).body:
        if isinstance(statement, ast.Assign):
            given[statement.targets[0].id] = ast.literal_eval(statement.value)
    check(given, dict(_LINE.findall(cells[place])), "this notebook")
