"""Faults made on purpose, a few times each; `faults.py` makes them by the hundred, and its page is held to its figures."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import faults
import load

from dnm.disk import read_json

ROOT = Path(__file__).parents[1]
QUICK = ["kill_training", "kill_sweep", "kill_fit", "kill_predict", "no_locks", "two_at_once", "clock_back", "damaged_results",
         "damaged_checkpoints", "damaged_models", "damaged_data"]


def test_no_fault_loses_or_falsifies_anything(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "tests" / "faults.py", "--times", "2", "--out", tmp_path / "faults.md", "--only", *QUICK],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "faults.json").read_text())["faults"]
    assert len(found) == len(QUICK) and all(fault["times"] > 0 for fault in found)


def test_a_damage_that_goes_unnoticed_would_be_found(tmp_path):
    """The same faults where checksums are not looked at."""
    script = tmp_path / "blind.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import zlib
import faults
zlib.crc32 = lambda *_: 0
sys.exit(faults.main())
""")
    done = subprocess.run([sys.executable, script, "--times", "40", "--only", "damaged_results"], capture_output=True, text=True)
    assert done.returncode == 1 and re.search("believed [1-9]", done.stdout), done.stderr


def test_the_pages_are_those_of_their_figures():
    report = ROOT / "data" / "report"
    kept = read_json(report / "faults.json")
    made = [faults.Tally(**one | {"said": Counter(one["said"])}) for one in kept["faults"]]
    assert faults.page(made, kept["command"]) == (report / "faults.md").read_text()
    assert sum(one.times for one in made) >= 500 and not any(one.lost or one.believed for one in made)
    assert {one.fault for one in made} >= {"SIGKILL, `dnm study`", "a full disk", "a damaged result"}
    assert load.page(read_json(report / "load.json")) == (report / "load.md").read_text()
