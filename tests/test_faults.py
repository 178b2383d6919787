"""Faults made on purpose, a few times each; `faults.py` makes them by the hundred, and its page is held to its figures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_page_of_faults_is_of_its_figures():
    kept, page = (ROOT / "data" / "report" / f"faults.{kind}" for kind in ("json", "md"))
    if not kept.exists():
        pytest.skip("not made yet")
    faults = json.loads(kept.read_text())["faults"]
    assert sum(fault["times"] for fault in faults) >= 500
    assert not any(fault["lost"] or fault["believed"] for fault in faults)
    for fault in faults:
        assert f"| {fault['fault']} | {fault['times']} | 0 | 0 |" in page.read_text()
