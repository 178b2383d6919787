"""How far a list of runs is: one status, one line for people, a bar in the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dnm.config import RunConfig


@dataclass
class Status:
    """How far a list of runs is; handed to ``on_status`` whenever something changes.

    ``step`` and ``row``, the newest evaluation, are those of ``config``, the run this process is training (None where
    ``training`` runs are in others' hands). ``histories`` holds the evaluations of every run so far. Work is counted in
    training steps (`dnm.runs.plan.units`).
    """

    configs: list[RunConfig]
    config: RunConfig | None = None
    step: int = 0
    row: dict | None = None
    reused: int = 0
    trained: int = 0
    failed: int = 0
    training: int = 0
    seconds: float = 0.0
    work_done: float = 0.0
    work_total: float = 0.0
    histories: dict[RunConfig, list[dict]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.reused + self.trained + self.failed == len(self.configs)

    @property
    def line(self) -> str:
        """One line for people."""
        failed = f", {self.failed} failed" if self.failed else ""
        done = f"{self.reused + self.trained}/{len(self.configs)} runs"
        counted, left = f"{done} ({self.reused} reused{failed})", ""
        if self.work_done >= 5:  # before, nothing can be said
            left = f", {duration(self.seconds / self.work_done * (self.work_total - self.work_done))} left"
        if self.finished:
            return f"{counted} in {duration(self.seconds)}"
        if self.config is None:
            return f"{counted}, {self.training} in training{left}"
        accuracy = f", validation {self.row['validation_accuracy']:.1%}" if self.row else ""
        return (f"{done}{failed}: {self.config.method}, seed {self.config.seed}, step {self.step}/{self.config.steps}"
                f"{left}{accuracy}")


def duration(seconds: float) -> str:
    """A time in words: ``35 seconds``, ``about 16 minutes``, ``about 2.5 hours``."""
    if (whole := round(seconds)) < 100:
        return f"{whole} second{'s' * (whole != 1)}"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {round(seconds / 3600, 1):g} hours"


@contextmanager
def in_terminal() -> Iterator[Callable[[Status], None]]:
    """A tqdm bar on standard error, over the work of all runs; a line now and then where it is no terminal."""
    from tqdm import tqdm

    bar = tqdm(total=0, unit="step", dynamic_ncols=True, bar_format="{percentage:3.0f}% |{bar:10}| {desc}",
               mininterval=0.2 if sys.stderr.isatty() else 15, delay=0.5)
    told = 0

    def show(status: Status) -> None:
        nonlocal told
        for note in status.notes[told:]:
            bar.write(note, file=sys.stderr)
        told = len(status.notes)
        bar.total = max(1, round(status.work_total))
        bar.n = bar.total if status.finished else min(bar.total, round(status.work_done))
        bar.set_description_str(status.line, refresh=False)
        bar.update(0)

    with bar:
        try:
            yield show
        finally:
            if bar.total:
                bar.delay = 0  # else a short bar is not drawn, or not ended
    if bar.total and sys.stderr.isatty():
        print(file=sys.stderr)  # what comes next is no part of it
