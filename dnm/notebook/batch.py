"""The main job and the batch job: first all runs, side by side, then the notebooks, then one report.

Which runs a notebook needs stands in the notebook alone: in its cell tagged ``runs``, as ``configs``, ``more`` (for a
figure of its own) and ``models`` (those of them whose trained model it needs). Taught in notebook 00.
"""

import contextlib
import io
import time
from pathlib import Path

import joblib
import pandas as pd

from dnm.config import DATASETS, RunConfig
from dnm.data.datasets import dataset_of
from dnm.errors import DnmError, project_root, unknown
from dnm.notebook.page import write_report
from dnm.notebook.parameters import check, declared
from dnm.runs.progress import duration, in_terminal
from dnm.runs.results import frame
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study import tables


def notebooks() -> list[Path]:
    """The study's notebooks, in order."""
    found = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise DnmError(f"no notebooks under {project_root() / 'notebooks'}; run the study from a checkout of the "
                       "project, or set DNM_HOME to one")
    return found


def run_study(profile: str, dataset: str, out: Path, runs: str | None = None, **columns: str) -> Path:
    """Execute every notebook, on the data set where it has such a parameter; write a report to ``out`` and print it."""
    started, store = time.perf_counter(), RunStore.open(runs)
    config = RunConfig.create(profile, dataset=dataset, **columns)
    wanted = {name: getattr(config, name) for name in ("dataset", "profile", *columns)} | {"store": str(store.folder)}
    jobs = [_job(path, out / "notebooks", wanted) for path in notebooks()]
    records = train_all(jobs, store)
    executed = execute_all(jobs)
    trained = _frame(records, next(job for job in jobs if "sizes" in declared(job[0])))
    print("figures, tables and report …", flush=True)
    written = {"report": [write_report(executed, trained, out / "report.html")], "notebooks": executed,
               "tables": tables.write_tables(trained, out), "figures": tables.write_figures(trained, out / "figures")}
    table = tables.summary(trained)
    print(f"\n{tables.caption(table)}\n{tables.readable(table).to_string(index=False)}\n")
    print(f"done in {duration(time.perf_counter() - started)}")
    for what, paths in written.items():
        print(f"{what}:", *(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                            for path in paths), sep="\n  ")
    return written["report"][0]


def run_batch(notebooks: list[str], datasets: list[str], out: Path, parameters: dict) -> list[Path]:
    """Execute chosen notebooks once for each data set; parameters are checked before anything is trained.

    Every parameter must be known to at least one of the notebooks; each gets those it has. Writes and prints, for each
    data set, the executed notebooks and one HTML page with all of them.
    """
    parameters, chosen = dict(parameters), {path: declared(path) for path in map(_named, notebooks)}
    everything = {name: kind for kinds in chosen.values() for name, kind in kinds.items()}
    check(parameters, everything, " or ".join(path.stem for path in chosen))
    blind = ", ".join(path.name for path, kinds in chosen.items() if "dataset" not in kinds)
    folders, written = {}, []
    for name in datasets:
        config = RunConfig.create(dataset=name)
        if config.dataset in DATASETS:  # a file's columns may be named by the notebook
            if config.dataset != RunConfig.dataset and blind:
                raise DnmError(f"{blind} cannot take data set {name!r}: it reads a file of your own, or none")
            dataset_of(config)
        stem = Path(config.dataset).stem.strip(".") or "data"  # of a file called ...csv it would be ..
        folders.setdefault(config.dataset, out / (f"{stem}-{len(folders)}" if out / stem in folders.values() else stem))
    jobs = {folder: [_job(path, folder, {"dataset": dataset} | parameters) for path in chosen]
            for dataset, folder in folders.items()}
    records = train_all([job for several in jobs.values() for job in several], RunStore.open(parameters.get("store")))
    for (folder, several), dataset in zip(jobs.items(), folders, strict=True):
        print(f"{folder.name}:", flush=True)
        executed = execute_all(several)
        about = f"notebooks on {Path(dataset).stem}"
        written += [*executed, write_report(executed, _frame(records, *several), folder / "report.html", about)]
    print(*written, sep="\n")
    return written


def _named(name: str) -> Path:
    """A notebook by number, name or path."""
    for path in notebooks():
        if name.zfill(2) in (path.stem, path.name, path.stem.split("_")[0], str(path)) or Path(name).resolve() == path:
            return path
    raise unknown("notebook", name, [path.stem for path in notebooks()])


Job = tuple[Path, Path, dict]  # a notebook, where it goes, its parameters


def _job(path: Path, folder: Path, wanted: dict) -> Job:
    """A notebook with those of the wanted parameters that it has."""
    kinds = declared(path)
    if wanted["dataset"] not in DATASETS:
        wanted = {"file": wanted["dataset"]} | wanted
    given = {name: value for name, value in wanted.items() if name in kinds}
    check(given, kinds, path.name)
    return path, folder / path.name, given


def runs_of(path: Path, given: dict) -> dict[str, list[RunConfig]]:
    """What a notebook trains with the given parameters: ``configs``, ``more``, ``models``; its own code says so."""
    import nbformat

    cells = [(cell.metadata.get("tags", []), cell.source) for cell in nbformat.read(path, 4).cells
             if cell.cell_type == "code"]
    names: dict = {"In": ["", ""]}
    with contextlib.redirect_stdout(io.StringIO()):
        for tags, source in cells if any("runs" in tags for tags, _ in cells) else []:
            exec(compile(source, path.name, "exec"), names)
            if "parameters" in tags:
                names |= given
            if "runs" in tags:
                break
    return {name: names.get(name, []) for name in ("configs", "more", "models")}


def train_all(jobs: list[Job], store: RunStore) -> dict[str, dict]:
    """Train what the notebooks need and is not stored, on all cores; records by the run's hash."""
    needs = [runs_of(path, given) for path, _, given in jobs]
    configs = [config for need in needs for config in (*need["models"], *need["configs"], *need["more"])]
    if not (configs := list({config.hash: config for config in configs}.values())):
        return {}
    with in_terminal() as show:
        records = run_all(configs, store, save_models=[c for need in needs for c in need["models"]], on_status=show)
    return {record["hash"]: record for record in records}


def _frame(records: dict[str, dict], *jobs: Job) -> pd.DataFrame:
    """The runs that notebooks compare, of the records by hash."""
    wanted = {config.hash for path, _, given in jobs for config in runs_of(path, given)["configs"]}
    return frame([record for name, record in records.items() if name in wanted])


def execute_all(jobs: list[Job]) -> list[Path]:
    """Execute notebooks side by side, one a core, the later ones, which take longest, first; tells as each ends."""
    cores = joblib.cpu_count(only_physical_cores=True)
    workers = min(cores, len(jobs))
    print(f"{len(jobs)} notebooks, {workers} at a time …", flush=True)
    with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=max(1, cores // workers)):
        ends = joblib.Parallel(return_as="generator_unordered", batch_size=1)(
            joblib.delayed(_timed)(*job) for job in jobs[::-1])
        for number, (path, seconds) in enumerate(ends, start=1):
            print(f"[{number}/{len(jobs)}] {path.name} {duration(seconds)}", flush=True)
    return [target for _, target, _ in jobs]


def _timed(path: Path, target: Path, given: dict) -> tuple[Path, float]:
    started = time.perf_counter()
    execute(path, target, given)
    return path, time.perf_counter() - started


def execute(path: Path, target: Path, parameters: dict) -> Path:
    """Run one notebook, its parameters checked before anything starts."""
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    class Here(AsyncKernelManager):  # of the Python that runs this: what is registered as python3 may be another
        kernel_spec = KernelSpecManager(kernel_dirs=[]).get_kernel_spec("python3")

    check(parameters, declared(path), path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(str(path), str(target), parameters=parameters, kernel_name="python3",
                                   kernel_manager_class=Here, progress_bar=False, store_widget_state=False,
                                   extra_arguments=["--IPKernelApp.log_level=50"])  # no word on how it connects
    except papermill.PapermillExecutionError as error:
        raise DnmError(f"{path.name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                       f"(the notebook so far: {target})") from None
    except Exception as error:  # a kernel that was killed or could not start
        reason = (str(error).splitlines() or [""])[0]
        raise DnmError(f"{path.name}: {type(error).__name__}: {reason}; finished runs are kept, run the same "
                       "command again to go on") from None
    return target
