"""Properties that hold for whatever is handed in: settings, the command line, and the method's own functions."""

import json
import math

import pytest
from conftest import examples
from hypothesis import assume, given
from hypothesis import strategies as st

from dnm.config import MOST, PROFILES, RunConfig, as_list
from dnm.errors import DnmError
from dnm.methods import METHODS
from dnm.runs.store import load_files


def refused(error: DnmError) -> bool:
    return len(str(error).splitlines()) == 1


# ---------------------------------------------------------------- settings

numbers = st.integers() | st.floats() | st.sampled_from([10**30, -10**30, 10**400, 2**53 + 1, 1e300, 5e-324, -0.0, math.nan, math.inf])
words = st.text(max_size=8) | st.sampled_from(["all", "auto", "minilm", "cnn", "mean", "nan", "-inf", "1e400", "1e3", "~nobody/x", "a/b.csv", "\0", "\ud800", "a" * 300,
                                               "a\nb.csv", "7", "\u0667", "{}"])
json_values = st.recursive(st.none() | st.booleans() | numbers | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2), max_leaves=4)
SETTINGS = [*vars(RunConfig())]
within = {name: st.integers(1, most) for name, most in MOST.items()} | {
    "n_train": st.just("all") | st.integers(1, MOST["n_train"]), "seed": st.integers(0, MOST["seed"]), "eval_limit": st.integers(0, MOST["eval_limit"]),
    "batch_size": st.integers(2, MOST["batch_size"]), "max_length": st.integers(8, 512), "dropout": st.floats(0, 1, exclude_max=True),
    "lr": st.floats(0, 1e6), "head_lr": st.floats(0, 1e6, exclude_min=True), "alpha": st.floats(0, 1e6, exclude_min=True),
    "original_weight": st.floats(0, 1e6), "pooling": st.sampled_from(["cls", "mean", "own"]), "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]), "dataset": st.sampled_from(["builtin", "subj", "a/b.csv", "\u00fc, x.xlsx"]),
    "text_column": words.filter(lambda text: text.isprintable()), "label_column": st.just("") | st.just("a, b"), "method": st.sampled_from([*METHODS]),
    "profile": st.sampled_from([*PROFILES]), "encoder": st.sampled_from(["minilm", "cnn", "org/model"]), "synonyms": st.sampled_from(["", "wordnet", "x.txt"])}
admissible = st.fixed_dictionaries({}, optional=within)


def made(settings: dict) -> RunConfig:
    try:
        return RunConfig.create(**settings)
    except DnmError:  # no such combination
        assume(False)


@examples(300)
@given(st.sampled_from(SETTINGS), json_values)
def test_any_value_of_any_setting_gives_a_run_or_one_line(name, value):
    try:
        config = RunConfig.create(**{name: value})
    except DnmError as error:
        assert refused(error)
    else:
        for setting, own in vars(config).items():
            default = getattr(RunConfig, setting)
            assert type(own) in ((int, str) if setting == "n_train" else (type(default),))
            assert isinstance(own, str) or (math.isfinite(own) and abs(own) <= MOST.get(setting, 10**6))
        assert RunConfig.create(**config.to_dict()) == config


@examples(150)
@given(admissible)
def test_a_run_survives_json_with_its_hash(settings):
    config = made(settings)
    again = RunConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config and again.hash == config.hash and len(config.hash) == 12
    assert RunConfig.create(**config.to_dict()).hash == config.hash and config.with_().hash == config.hash
    assert config.label.startswith(config.profile) and config.title


@examples(150)
@given(admissible, admissible, st.data())
def test_two_runs_share_a_hash_only_where_they_are_one(settings, others, data):
    """The second is the first with one setting changed, or any other."""
    config = made(settings)
    name = data.draw(st.sampled_from([*within]))
    for changed in (others, settings | {name: data.draw(within[name])}):
        other = made(changed)
        assert (config == other) == (config.hash == other.hash)


def test_zero_has_one_sign_and_so_one_run():
    assert RunConfig.create(lr=-0.0).hash == RunConfig.create(lr=0.0).hash == RunConfig.create(lr="-0").hash


@pytest.mark.parametrize("name", MOST)
def test_numbers_that_would_fill_the_memory_are_refused(name):
    assert getattr(RunConfig.create(method="dnm", **{name: MOST[name]}), name) == MOST[name]
    for much in (MOST[name] + 1, str(MOST[name] + 1), 10**400, float("inf")):
        with pytest.raises(DnmError, match=f"{name} must be a number.*, {MOST[name]} at most, got"):
            RunConfig.create(**{name: much})


def test_all_kept_runs_are_ones_that_may_still_be_asked_for():
    from test_project import ROOT

    kept = [record["config"] for *_, records in load_files(ROOT / "data" / "results") for record in records]
    assert len(kept) > 100
    for config in kept:
        assert RunConfig.create(**config) == RunConfig(**config)


@examples(150)
@given(json_values, st.sampled_from([int, str]))
def test_any_value_is_a_list_or_refused_in_one_line(value, kind):
    try:
        found = as_list(value, kind)
    except DnmError as error:
        assert refused(error)
    else:
        assert isinstance(found, list) and all(type(one) is kind for one in found)


@examples(50)
@given(st.lists(st.integers()))
def test_whole_numbers_are_listed_exactly_however_they_are_written(values):
    for written in (values, tuple(values), [*map(str, values)], ",".join(map(str, values)), str(values)):
        assert as_list(written, int) == values
