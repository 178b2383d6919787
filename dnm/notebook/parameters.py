"""A notebook's parameters, checked before it runs: papermill only warns of an unknown name. Taught in notebook 00."""

import ast
import re
from pathlib import Path

from dnm.errors import DnmError, unknown

KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool,
         "list": (list, str, int)}  # "plain,dnm" and a single value are lists too
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
        kind = KINDS.get(known[name], object)  # of one's own notebook, without a type or with another: not checked
        right = isinstance(value, kind) or (name, value) in (("n_train", "all"), ("steps", "auto"))
        if not right or (isinstance(value, bool) and kind not in (bool, object)):
            raise DnmError(f"{where}: {name} must be {known[name]}, got {value!r}")


def check_injected(cells: list[str]) -> None:
    """Check what papermill put below the parameters: ``check_injected(In)`` in the first cell after them."""
    place = max((i for i, cell in enumerate(cells[:-1]) if _LINE.search(cell)), default=0)
    injected = "\n".join(cell for cell in cells[place + 1:-1] if cell.lstrip().startswith("# Parameters"))
    given = {statement.targets[0].id: ast.literal_eval(statement.value) for statement in ast.parse(injected).body
             if isinstance(statement, ast.Assign)}
    check(given, dict(_LINE.findall(cells[place])), "this notebook")
