"""The command line: ``dnm`` or ``python -m dnm``. Heavy libraries are imported by the command that needs them."""

import argparse
import contextlib
import inspect
import json
import os
import re
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

from dnm import __version__
from dnm.config import PROFILES, RunConfig, as_list
from dnm.errors import DnmError, Interrupted, project_root, reason, unknown
from dnm.plots.plain import terminal

EXAMPLES = """examples:
  dnm study                                            the notebooks, a report, figures and tables
  dnm run 02 04 06 --datasets subj mr                  chosen notebooks, once for each data set
  dnm paper table2 --sizes 50 --dry-run                what a table of the paper needs, and how long it takes
  dnm train --dataset mine.csv --n-train all --methods plain dnm --save-models
  dnm fit reviews.csv --out my-model                   a classifier from a table of your own
  dnm predict my-model new.csv --out predicted.csv     its classes for every row of another
  dnm compare reviews.csv                              whether mixing is worth it there

places: a file or folder that you name is looked for from where you are, as in every shell. What you do not name
lies in the project's folder: {root}
($DNM_HOME, else the checkout, else where you are): runs/ for runs and all that is made of them, data/ for data sets.
A run there and its model can be named by the run's hash, or its first digits, four at least.
"""
_SETTINGS = [name for name in vars(RunConfig()) if name not in ("method", "seed", "profile")]
_PROFILE = f"one of {', '.join(PROFILES)} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest valid name where an option or command is misspelt."""

    def parse_known_args(self, args=None, namespace=None):
        known, rest = super().parse_known_args(args, namespace)
        if rest and self.prog != "dnm":  # a command's own parser knows its options, the main one does not
            raise unknown("option", rest[0], (name for name in self._option_string_actions if name.startswith("--")))
        return known, rest

    def error(self, message: str):
        raise unknown("command", message.split("'")[1], COMMANDS) if "invalid choice" in message else DnmError(message)


def parser() -> argparse.ArgumentParser:
    main = _Parser(prog="dnm", description="Dynamic nonlinear mixup with distance-based sample selection.",
                   usage="dnm COMMAND [OPTIONS]  (see dnm COMMAND --help)", epilog=EXAMPLES.format(root=project_root()),
                   formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    main.add_argument("--version", action="version", version=f"dnm {__version__}")
    commands = main.add_subparsers(title="commands", prog="dnm", dest="command", metavar="", required=True,
                                   parser_class=lambda **about: _Parser(allow_abbrev=False, **about))

    study = commands.add_parser("study", help="run the notebooks in order; write report, figures and tables")
    study.add_argument("--profile", default="lesson", help=_PROFILE)
    study.add_argument("--dataset", default="builtin", help="data set of the notebooks (default: builtin)")
    for kind, what in (("text", "sentences"), ("label", "classes")):
        study.add_argument(f"--{kind}-column", default="", metavar="NAME",
                           help=f"column of one's own file that holds the {what}, guessed if empty")
    _places(study, "runs/study")

    run = commands.add_parser("run", help="run chosen notebooks through papermill, once for each data set")
    run.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="numbers or names, such as 02 04 06_tsne")
    run.add_argument("--datasets", nargs="+", default=["builtin"], metavar="DATA", help="default: builtin")
    _parameters(run, "a parameter of the notebooks; the value is read as JSON where it is JSON")
    _out(run, "runs/batch")

    paper = commands.add_parser("paper", help="the paper's tables and figures, with runs of our own", epilog=(
        "for example: table2 --sizes 50; figure2 -p steps 200; table10 --datasets reviews.csv; all --profile paper "
        "--encoder bert-base-uncased (the whole paper, as published: 2,160 runs)"))
    paper.add_argument("names", nargs="+", metavar="NAME", help="table2 … table11, figure1 … figure4, all; or report: "
                       "the report from the runs kept in data/results, without training")
    paper.add_argument("--datasets", nargs="+", metavar="DATA", help="default: those of the paper's table or figure")
    paper.add_argument("--sizes", nargs="+", metavar="N", help="training sentences, or all (default: the paper's)")
    paper.add_argument("--profile", default="quick", help=_PROFILE)
    paper.add_argument("--encoder", default="minilm", help="the pre-trained encoder (default: minilm)")
    _parameters(paper, "a setting of all runs, such as steps 200 (see `dnm train --help`)")
    paper.add_argument("--cluster", default="", metavar="ADDRESS", help="of a Dask scheduler, such as tcp://node1:8786")
    _many(paper, "0 1 2 3 4")
    _places(paper, "runs/paper")

    train = commands.add_parser("train", help="train runs, reuse finished ones, print their table",
                                epilog="* default: the profile's, the encoder's or the method's")
    _settings(train)
    train.add_argument("--methods", nargs="+", default=["plain", "dnm"], metavar="METHOD",
                       help="rows of `dnm list` (default: plain dnm)")
    train.add_argument("--save-models", action="store_true", help="keep each trained model beside its result")
    _many(train, "0 1 2")
    _places(train)

    report = commands.add_parser("report", help="tables and figures from stored runs, without training")
    report.add_argument("runs", nargs="?", default=str(project_root() / "runs"), help="a folder of stored runs, a file "
                        "of several, or a run's hash (default: the project's runs/)")
    _out(report, "runs/report")

    fit = commands.add_parser("fit", help="train a classifier on a table of texts and labels of your own")
    _table(fit)
    fit.add_argument("--out", type=Path, default=project_root() / "runs" / "model", metavar="FOLDER",
                     help="where the model is kept (default: the project's runs/model/)")
    fit.add_argument("--test", type=float, default=0.2, metavar="SHARE", help="of the sentences, set aside for a score "
                     "(default: %(default)s; 0: all are learned from)")
    fit.add_argument("--method", default="dnm", help="a row of `dnm list` (default: %(default)s)")
    _classifier(fit)

    compare = commands.add_parser("compare", help="which method suits a table of your own, by cross-validation")
    _table(compare)
    compare.add_argument("--methods", nargs="+", metavar="METHOD", help="rows of `dnm list`, the simplest first "
                         "(default: logreg plain label-embedding senmixup dnm)")
    compare.add_argument("--folds", type=_count, default=5, help="parts of the table, each once set aside (default: 5)")
    compare.add_argument("--repeats", type=_count, default=2, help="times that the parts are drawn anew (default: 2)")
    compare.add_argument("--jobs", type=_count, dest="workers", help="processes (default: one a core)")
    _classifier(compare)
    _out(compare, "runs/compare")

    predict = commands.add_parser("predict", help="classify sentences, or all rows of a file, with a saved model")
    predict.add_argument("model", help="folder of a saved model, or its run's hash")
    predict.add_argument("texts", nargs="+", metavar="TEXT", help="sentences; or one file, or - for standard input")
    predict.add_argument("--out", type=Path, metavar="FILE", help="of a file: where its rows go with their classes, as "
                         ".csv, .tsv or .jsonl (default: NAME.predicted.csv where you are)")
    _columns(predict)
    _places(predict)

    fetch = commands.add_parser("fetch", help="store the real data sets under data/")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="subj, mr, sst2, sst1")

    bench = commands.add_parser("bench", argument_default=argparse.SUPPRESS, help="speed, or accuracy, beside others")
    bench.add_argument("what", nargs="?", default="speed", metavar="WHAT", help="speed, methods (a step of each) or "
                       "accuracy (default: speed)")
    bench.add_argument("--encoder", help="(default: minilm)")
    bench.add_argument("--out", type=Path, help="JSON file (default: none; of accuracy runs/bench-accuracy.json)")
    speed, good = bench.add_argument_group("speed, methods"), bench.add_argument_group("accuracy")
    speed.add_argument("--dataset", help="(default: builtin)")
    speed.add_argument("--blocks", type=int, help="timed blocks of each contestant (default: 5)")
    speed.add_argument("--steps", type=int, help="steps a block (default: 20)")
    speed.add_argument("--fleets", nargs="+", type=_count, dest="sizes", metavar="S", help="default: 1 2 4; GPU: to 16")
    speed.add_argument("--precisions", nargs="+", metavar="TYPE", help="float32, bfloat16 (default: all there are)")
    speed.add_argument("--methods", nargs="+", metavar="METHOD", help="of methods (default: all but ablations)")
    good.add_argument("--datasets", nargs="+", metavar="DATA", help="(default: subj mr sst2 sst1)")
    good.add_argument("--labels", nargs="+", type=_count, metavar="M", help="of each class (default: 8 16 64)")
    good.add_argument("--splits", type=_count, help="draws of the training sentences (default: 10)")
    good.add_argument("--test", type=int, metavar="N", help="test sentences at most, 0 for all (default: 500)")
    good.add_argument("--systems", nargs="+", metavar="NAME", help="methods, setfit, setfit-r20 (default: six of them)")
    good.add_argument("--jobs", type=_count, dest="workers", help="processes (default: one a core)")

    commands.add_parser("list", help="methods, data sets, encoders and profiles")
    return main


def _parameters(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], dest="parameters",
                         metavar=("NAME", "VALUE"), help=about)


def _columns(command: argparse.ArgumentParser) -> None:
    command.add_argument("--text", "--text-column", default="", metavar="COLUMN", help="of the texts, else guessed")
    command.add_argument("--separator", default="", help="comma, semicolon, tab or a character (default: recognised)")
    command.add_argument("--sheet", default="", help="of a workbook, by name (default: the first)")


def _table(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", help="CSV, TSV, Excel, JSON, JSON Lines or Parquet, .gz too; a folder of train and "
                         "test files; - for standard input")
    command.add_argument("--label", "--label-column", default="", metavar="COLUMN", help="of the classes, else guessed")
    command.add_argument("--strict", action="store_true", help="a row without a text or a label is an error")
    _columns(command)


def _classifier(command: argparse.ArgumentParser) -> None:
    """Settings of `dnm.DNMClassifier`; what is not given keeps the default there."""
    for name, about in (("encoder", "minilm, cnn, lstm, an encoder's id on the Hub, or a folder"),
                        ("steps", "training steps at most (default: by the number of sentences)"),
                        ("lr", "learning rate of the encoder"), ("head-lr", "learning rate of the rest"),
                        ("batch-size", "sentences a step"), ("max-length", "word pieces of a text that are read"),
                        ("class-weight", "balanced: rare classes count as much as frequent ones"),
                        ("device", "auto, cpu or cuda")):
        command.add_argument(f"--{name}", type=_json, default=argparse.SUPPRESS, metavar="VALUE", help=about)
    command.add_argument("--seed", type=int, default=0, dest="random_state", help="of the training (default: 0)")


def _places(command: argparse.ArgumentParser, out: str = "") -> None:
    command.add_argument("--runs", help="folder of stored runs (default: the project's runs/)")
    if out:
        _out(command, out)


def _out(command: argparse.ArgumentParser, place: str) -> None:
    command.add_argument("--out", type=Path, default=project_root() / place,
                         help=f"output folder (default: the project's {place}/)")


def _many(command: argparse.ArgumentParser, seeds: str) -> None:
    command.add_argument("--seeds", nargs="+", default=seeds.split(), metavar="SEED",
                         help=f"each method is trained once with each (default: {seeds})")
    command.add_argument("--jobs", type=_count, dest="workers",
                         help="processes (default: one a GPU, or, if it pays, one a core where there is none)")
    command.add_argument("--fleet", type=_count, metavar="S",
                         help="runs trained together (default: what a GPU holds; 1 on a CPU)")
    command.add_argument("--dry-run", action="store_true", help="list the runs, those already done and the time left")
    command.add_argument("--results", type=Path, metavar="FILE", help="also write all results to one JSON file")


def _settings(command: argparse.ArgumentParser) -> None:
    """An option for every setting of a run that is not a list of its own."""
    command.add_argument("--profile", default="quick", help=_PROFILE)
    about = dict(re.findall(r"^    (\w+): .+?  # (.+)$", inspect.getsource(RunConfig), flags=re.M))
    decided = {name for profile in PROFILES.values() for name in profile} | {"pooling", "dropout", "k"}
    for name in _SETTINGS:
        note = " *" if name in decided else f" (default: {getattr(RunConfig, name)})".replace(" (default: )", "")
        command.add_argument("--" + name.replace("_", "-"), metavar="VALUE", help=about[name] + note)


def _json(text: str):
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


def _count(text: str) -> int:
    if len(numbers := as_list(text, int)) != 1 or numbers[0] < 1:
        raise DnmError(f"expected a number of at least 1, got {text}")
    return numbers[0]


@terminal()
def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 0, 2 for something the user can mend, 130 after Ctrl-C."""
    warn = cache(lambda text: print(f"warning: {text}", file=sys.stderr))  # each once
    warnings.showwarning = lambda message, *_: warn(str(message))
    if getattr(sys.stdout, "errors", "") == "strict":  # a character that it cannot show is not worth a result
        sys.stdout.reconfigure(errors="replace")
    try:
        options = vars(parser().parse_args((sys.argv[1:] if arguments is None else arguments) or ["--help"]))
        if several := options.get("datasets"):  # a file's name may have commas, too
            options["datasets"] = [name for text in several
                                   for name in ([text] if Path(text).exists() else as_list(text))]
        if "parameters" in options:
            options["parameters"] = {name: _json(value) for name, value in options["parameters"]}
        place, name = COMMANDS[options.pop("command")].split(":")
        getattr(import_module(place), name)(**options)
        return 0
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except DnmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
        print(f"error: {reason(error)} (finished runs are kept; DNM_DEBUG=1 shows where)", file=sys.stderr)
        return 1


COMMANDS = {"study": "dnm.notebook.batch:run_study", "run": "dnm.notebook.batch:run_batch",
            "paper": "dnm.study.report:run_paper", "train": "dnm.study.commands:train",
            "report": "dnm.study.commands:report", "predict": "dnm.study.own:predict", "fit": "dnm.study.own:fit",
            "compare": "dnm.study.own:compare", "list": "dnm.study.commands:show_list",
            "fetch": "dnm.data.datasets:fetch", "bench": "dnm.bench.accuracy:bench"}
