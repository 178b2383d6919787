"""The command line: ``dnm`` or ``python -m dnm``. Heavy libraries are imported by the command that needs them."""

import argparse
import json
import os
import re
import sys
import warnings
from pathlib import Path

from dnm import __version__
from dnm.config import DATASETS, ENCODER_SETTINGS, PROFILES, RunConfig, as_list
from dnm.errors import DnmError, project_root, unknown
from dnm.methods import METHODS

EXAMPLES = """examples:
  dnm study                                            the notebooks, a report, figures and tables
  dnm run 02 04 06 --datasets subj mr                  chosen notebooks, once for each data set
  dnm paper table2 --sizes 50 --dry-run                what a table of the paper needs, and how long it takes
  dnm train --dataset subj --n-train 50 --methods plain dnm --seeds 0 1 2
  dnm train --dataset mine.csv --n-train all --methods plain dnm --save-models
  dnm predict runs/0123456789ab.model "a sentence to classify"
  dnm list                                             methods, data sets, encoders, profiles
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest valid name where an option or command is misspelt."""

    options: tuple[str, ...] = ()

    def parse_known_args(self, args=None, namespace=None):
        known, rest = super().parse_known_args(args, namespace)
        if rest and self.prog != "dnm":  # a command's own parser knows its options, the main one does not
            self.options = tuple(option for option in self._option_string_actions if option.startswith("--"))
            self.error("unrecognized arguments: " + " ".join(rest))
        return known, rest

    def error(self, message: str):
        words = message.split(": ", 1)
        if "unrecognized arguments" in words[0]:
            message = str(unknown("option", words[-1].split()[0], self.options))
        elif "invalid choice" in message and "'" in message:
            message = str(unknown("command", message.split("'")[1], COMMANDS))
        raise DnmError(message)


def parser() -> argparse.ArgumentParser:
    main = _Parser(prog="dnm", description="Dynamic nonlinear mixup with distance-based sample selection.",
                   epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    main.add_argument("--version", action="version", version=f"dnm {__version__}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)

    study = commands.add_parser("study", help="run the notebooks in order; write report, figures and tables")
    study.add_argument("--out", type=Path, help="output folder (default: runs/study)")
    study.add_argument("--runs", help="folder of stored runs (default: runs)")
    study.add_argument("--profile", default="lesson", help=f"one of {', '.join(PROFILES)} (default: lesson)")
    study.add_argument("--dataset", default="builtin", help="data set of the training notebook (default: builtin)")

    run = commands.add_parser("run", help="run chosen notebooks through papermill, once for each data set")
    run.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="numbers or names, such as 02 04 06_tsne")
    run.add_argument("--datasets", nargs="+", default=["builtin"], metavar="DATA", help="default: builtin")
    _parameters(run, "a parameter of the notebooks; the value is read as JSON where it is JSON")
    run.add_argument("--out", type=Path, help="output folder (default: runs/batch)")

    paper = commands.add_parser("paper", help="the paper's tables and figures from runs of our own, beside its numbers")
    paper.add_argument("names", nargs="+", metavar="NAME", help="table2 … table11, figure1 … figure4, all; or report: "
                       "the report from the runs kept in data/results, without training")
    paper.add_argument("--datasets", nargs="+", metavar="DATA", help="default: those of the paper's table or figure")
    paper.add_argument("--sizes", nargs="+", metavar="N", help="training sentences, or all (default: the paper's)")
    paper.add_argument("--seeds", nargs="+", default=list("01234"), metavar="SEED", help="default: 0 1 2 3 4")
    paper.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    paper.add_argument("--encoder", default="minilm", help="the pre-trained encoder (default: minilm)")
    _parameters(paper, "a setting of all runs, such as steps 200 (see `dnm train --help`)")
    paper.add_argument("--dry-run", action="store_true", help="list the runs, those already done and the time left")
    paper.add_argument("--jobs", help="worker processes (default: one a GPU, or one a core where there is none)")
    paper.add_argument("--backend", default="local", help="local or dask (default: local)")
    paper.add_argument("--scheduler", default="", metavar="ADDRESS", help="of the Dask cluster, such as tcp://node1:8786")
    paper.add_argument("--fleet", metavar="S", help="runs trained together (default: what a GPU holds; one on a CPU)")
    paper.add_argument("--runs", help="folder of stored runs (default: runs)")
    paper.add_argument("--out", type=Path, help="folder of the report and figures (default: runs/paper)")
    paper.add_argument("--results", type=Path, metavar="FILE", help="also write all results to one JSON file, to keep")

    train = commands.add_parser("train", help="train runs, reuse finished ones, print their table")
    _settings(train)
    train.add_argument("--methods", nargs="+", default=["plain", "dnm"], metavar="METHOD",
                       help="rows of `dnm list` (default: plain dnm)")
    train.add_argument("--seeds", nargs="+", default=["0", "1", "2"], metavar="SEED",
                       help="each method is trained once with each (default: 0 1 2)")
    train.add_argument("--fleet", metavar="S", help="runs trained together (default: what a GPU holds; one on a CPU)")
    train.add_argument("--runs", help="folder of stored runs (default: runs)")
    train.add_argument("--save-models", action="store_true", help="keep each trained model beside its result")
    train.add_argument("--report", type=Path, metavar="DIR", help="also write tables and figures to DIR")
    train.add_argument("--results", type=Path, metavar="FILE", help="also write all results to one JSON file, to keep")

    report = commands.add_parser("report", help="tables and figures from stored runs, without training")
    report.add_argument("runs", help="a folder of stored runs, or one file that holds several")
    report.add_argument("--out", type=Path, default=Path("report"), help="output folder (default: report)")
    report.add_argument("--no-html", action="store_true", help="figures as PNG only (5 MB smaller each)")

    predict = commands.add_parser("predict", help="classify sentences with a saved model")
    predict.add_argument("model", help="folder of a saved model")
    predict.add_argument("texts", nargs="+", metavar="TEXT")

    fetch = commands.add_parser("fetch", help="store the real data sets under data/")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="subj, mr, sst2, sst1")
    fetch.add_argument("--force", action="store_true", help="download again what is already there")

    bench = commands.add_parser("bench", help="how fast training and evaluation are, against transformers.Trainer")
    bench.add_argument("--dataset", default="builtin")
    bench.add_argument("--encoder", default="minilm")
    bench.add_argument("--blocks", type=int, default=5, help="timed blocks of each contestant (default: 5)")
    bench.add_argument("--steps", type=int, default=20, help="steps a block (default: 20)")
    bench.add_argument("--fleets", nargs="+", metavar="S", help="sizes of fleets (default: 1 2 4; on a GPU to 16)")
    bench.add_argument("--precisions", nargs="+", metavar="TYPE", help="float32, bfloat16 (default: all there are)")
    bench.add_argument("--no-whole", action="store_true", help="do not time whole runs")
    bench.add_argument("--out", type=Path, help="also store the tables as JSON")

    commands.add_parser("list", help="methods, data sets, encoders and profiles")
    return main


COMMANDS = ("study", "run", "paper", "train", "report", "predict", "fetch", "bench", "list")


def _parameters(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                         help=about)


def _settings(command: argparse.ArgumentParser) -> None:
    """An option for every setting of a run that is not a list of its own."""
    command.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: quick)")
    about = dict(re.findall(r"^    (\w+) : (.+)$", RunConfig.__doc__, flags=re.M))
    decided = {name for profile in PROFILES.values() for name in profile} | {"pooling", "dropout", "k"}
    for name, default in RunConfig().to_dict().items():
        if name not in ("method", "seed", "profile"):
            note = "the profile's, encoder's or method's" if name in decided else default
            command.add_argument("--" + name.replace("_", "-"), metavar="VALUE",
                                 help=about[name] + (f" (default: {note})" if note != "" else ""))


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 0, 2 for something the user can mend, 130 after Ctrl-C."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        options = parser().parse_args(arguments)
        globals()[f"_{options.command}"](options)
        return 0
    except DnmError as error:
        stopped = type(error).__name__ == "Interrupted"
        print(error if stopped else f"error: {error}", file=sys.stderr)
        return 130 if stopped else 2
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left
        return 0
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Exception as error:
        if os.environ.get("DNM_DEBUG"):
            raise
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        print(f"error: {text} (finished runs are kept; DNM_DEBUG=1 shows where)", file=sys.stderr)
        return 1


def _positive(name: str, value: str | None) -> int | None:
    number = as_list(value, int)[0] if value else None
    if number is not None and number < 1:
        raise DnmError(f"{name} must be at least 1, got {number}")
    return number


def _train(options: argparse.Namespace) -> None:
    names = [name for name in RunConfig().to_dict() if name not in ("method", "seed", "profile")]
    settings = {name: value for name in names if (value := getattr(options, name)) is not None}
    from dnm.runs import grid, run_all
    from dnm.store import RunStore

    configs = grid(options.methods, as_list(options.seeds, int), options.profile, **settings)
    store = RunStore.open(options.runs)
    from dnm import progress, report  # only now: what is wrong with the settings is said at once

    with progress.in_terminal() as show:
        records = run_all(configs, store, save_models=options.save_models, on_status=show,
                          fleet=_positive("fleet", options.fleet))
    table = report.summary(records)
    print(report.caption(table), report.readable(table).to_string(index=False), sep="\n")
    print(f"runs: {store.folder}")
    if options.save_models:
        print("models:", *(f"{store.model_path(c)}  {c.method}, seed {c.seed}" for c in configs), sep="\n  ")
    if options.results:
        print(report.keep(records, options.results))
    if options.report:
        _write_report(records, options.report)


def _report(options: argparse.Namespace) -> None:
    from dnm.report import load_records

    _write_report(load_records(Path(options.runs)), options.out, not options.no_html)


def _write_report(records: list[dict], folder: Path, with_html: bool = True) -> None:
    from dnm.report import write_figures, write_tables

    for path in [*write_tables(records, folder), *write_figures(records, folder, with_html)]:
        print(path)


def _predict(options: argparse.Namespace) -> None:
    from dnm.models import Classifier

    classifier = Classifier.load(options.model)
    kind = "cosine" if METHODS[classifier.config.method].loss == "cosine" else "logit"
    for text, scores in zip(options.texts, classifier.scores(options.texts), strict=True):
        ranked = sorted(zip(scores.tolist(), classifier.label_names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{text}\t{kind}: " + ", ".join(f"{name} {score:.3f}" for score, name in ranked))


def _fetch(options: argparse.Namespace) -> None:
    from dnm.data import fetch

    for name in options.names:
        print(f"{name}: {fetch(name, options.force)}")


def _study(options: argparse.Namespace) -> None:
    from dnm.study import run_study

    run_study(options.out, RunConfig.create(options.profile, dataset=options.dataset), options.runs)


def _run(options: argparse.Namespace) -> None:
    from dnm.study import run_batch

    def value(text: str):
        try:
            return json.loads(text)
        except ValueError:
            return text

    out = options.out or project_root() / "runs" / "batch"
    for path in run_batch(options.notebooks, options.datasets, out.resolve(),
                          {name: value(text) for name, text in options.parameter}):
        print(path)


def _paper(options: argparse.Namespace) -> None:
    from dnm.paper import NAMES, experiment
    from dnm.store import RunStore

    out = options.out or project_root() / "runs" / "paper"
    if options.names == ["report"]:
        return _paper_report(Path(options.runs) if options.runs else project_root() / "data" / "results", out)
    if "report" in options.names:
        raise DnmError("`dnm paper report` reads kept runs and goes alone; other names write their report themselves")
    given = dict(options.parameter)
    if taken := {"dataset", "n_train", "method", "encoder", "seed", "profile"} & set(given):
        raise DnmError(f"{taken.pop()} is no setting of all runs here; see the options of `dnm paper --help`")
    names = list(NAMES) if "all" in options.names else list(dict.fromkeys(options.names))
    choice = dict(encoder=options.encoder, profile=options.profile, datasets=options.datasets,
                  sizes=options.sizes, seeds=tuple(as_list(options.seeds, int)), **given)
    wanted = {name: experiment(name, **choice) for name in names}
    jobs, fleet = _positive("jobs", options.jobs), _positive("fleet", options.fleet)
    store = RunStore.open(options.runs)
    groups = {  # whether models are kept (first, as tables take the same runs): runs, seed by seed
        True: wanted.get("figure4", []),
        False: sorted((c for name, configs in wanted.items() if name not in ("figure3", "figure4") for c in configs),
                      key=lambda config: config.seed)}
    from dnm.estimate import plan  # only now: what is wrong with the settings is said at once
    from dnm.sweep import sweep

    if options.dry_run:
        return print("\n".join(plan([*groups[True], *groups[False]], store, jobs)))
    from dnm import figures, paper_report, progress, report

    by_hash, errors = {}, {}
    for save_models, configs in groups.items():
        if configs:
            with progress.in_terminal() as show:
                found, failed = sweep(configs, store, jobs=jobs, backend=options.backend, scheduler=options.scheduler,
                                      save_models=save_models, fleet=fleet, on_status=show)
            by_hash |= {record["hash"]: record for record in found}
            errors |= failed
    records = list(by_hash.values())
    if options.results and records:
        print(report.keep(records, options.results))
    if any(name.startswith("table") for name in names) and records:
        print(*paper_report.write(records, out), sep="\n")
    for name in names:
        if name.startswith("figure") and not {config.hash for config in wanted[name]} & set(errors):
            with progress.in_terminal() as show:
                print(*figures.draw(name, out, store, show, **choice), sep="\n")
    if errors:
        raise DnmError(f"{len(errors)} runs failed, the others are finished; each error is in {store.folder}/RUN.error:"
                       + "".join(f"\n  {run}: {error}" for run, error in errors.items()))


def _paper_report(runs: Path, out: Path) -> None:
    from dnm import paper_report
    from dnm.report import load_files, load_records

    sources = [(file, len(found), command) for file, command, found in load_files(runs)]
    print(*paper_report.write(load_records(runs), out, sources), sep="\n")


def _bench(options: argparse.Namespace) -> None:
    from dnm.bench import run_bench

    sizes = [_positive("fleets", size) for size in options.fleets] if options.fleets else None
    run_bench(options.dataset, options.encoder, options.blocks, options.steps, sizes, not options.no_whole,
              options.precisions, options.out)


def _list(options: argparse.Namespace) -> None:
    print("methods:")
    for row in METHODS.values():
        print(f"  {row.name:15} {row.title} ({row.source})")
    print("  DSS, LDS, SDS: distance-based selection; largest, smallest distance samples\n"
          "  TIW, FIW, TOW, FOW: input and output (label) mixing weights tuned or fixed at their first draw")
    print("data sets:\n  " + ", ".join(DATASETS) + ", or a CSV, TSV, JSON Lines or Parquet file, or a folder of them")
    print("encoders:\n  " + ", ".join(ENCODER_SETTINGS) + ", any BERT-family id of the Hub, or a local folder")
    print("profiles:")
    for name, values in PROFILES.items():
        print(f"  {name:6} " + ", ".join(f"{key}={value}" for key, value in values.items()))
