"""Properties that hold for whatever is handed in: settings, the command line, and the method's own functions."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from conftest import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch.nn import functional as F

from dnm import mixing, selection
from dnm.cli import COMMANDS, main, parser
from dnm.config import MOST, PROFILES, RunConfig, as_list
from dnm.data.datasets import limited
from dnm.errors import DnmError
from dnm.methods import METHODS
from dnm.packing import NOTHING, Layout, pack, pack_alike
from dnm.runs.store import load_files
from dnm.training import Run, train


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
        with pytest.raises(DnmError, match=f"{name} must be a (whole )?number.*, {MOST[name]} at most, got"):
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


# ---------------------------------------------------------------- sentences in rows

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)


def check_layout(layout: Layout, lengths: np.ndarray, width: int) -> None:
    """Every word piece once, every sentence whole in one row, positions from 0, nothing where there is none."""
    owner, position = layout.owner.numpy(), layout.position.numpy()
    assert owner.shape == position.shape and owner.shape[1] <= width and layout.lengths.tolist() == lengths.tolist()
    assert np.array_equal(np.bincount(owner[owner != NOTHING], minlength=len(lengths)), lengths)
    assert (position[owner == NOTHING] == 0).all()
    for i, (first, length) in enumerate(zip(layout.first.tolist(), lengths.tolist(), strict=True)):
        row, column = divmod(first, owner.shape[1])
        assert (owner[row, column:column + length] == i).all() and (position[row, column:column + length] == np.arange(length)).all()
    sentences = [1000 * i + np.arange(length) for i, length in enumerate(lengths)]
    ids = layout.place(sentences).numpy()
    assert np.array_equal(np.sort(ids[ids != NOTHING]), np.concatenate(sentences)) and ((ids == NOTHING) == (owner == NOTHING)).all()


@examples(150)
@given(lengths, st.integers(0, 60), st.booleans())
def test_a_layout_holds_every_word_piece_once(lengths, more, share_rows):
    capacity = int(lengths.max()) + more
    layout = pack(lengths, capacity, share_rows)
    check_layout(layout, lengths, capacity)
    if not share_rows:
        assert layout.owner.shape == (len(lengths), lengths.max()) and (layout.first % lengths.max() == 0).all()


@examples(100)
@given(arrays(int, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(1, 20)), st.integers(0, 30), st.booleans(),
       st.just((0, 0)) | st.tuples(st.integers(1, 12), st.integers(1, 40)))
def test_layouts_of_one_shape_are_no_smaller_than_asked(lengths, more, share_rows, shape):
    capacity = int(lengths.max()) + more
    stacked = pack_alike(lengths, capacity, share_rows, shape)
    rows, width = stacked.owner.shape[1:]
    assert rows >= shape[0] and width >= shape[1] and (width == max(shape[1], lengths.max()) or not shape[1])
    for b in range(len(lengths)):
        check_layout(Layout(*(part[b] for part in stacked)), lengths[b], max(capacity, shape[1]))


@pytest.fixture(scope="module")
def tiny_bert(tiny_models):
    from dnm.encoders import build_encoder

    encoder, _ = build_encoder(RunConfig.create(encoder=str(tiny_models["bert"]), pooling="mean", max_length=128, precision="float32"))
    encoder.words.use(torch.arange(len(encoder.words.table) - 1))
    return encoder.eval()


@examples(12)
@given(lengths, st.integers(0, 60), st.booleans(), st.integers(0, 2**32 - 1))
def test_packed_sentences_have_the_states_they_have_alone(tiny_bert, lengths, more, share_rows, seed):
    rng = np.random.default_rng(seed)
    sentences = [rng.integers(1, 30_000, length) for length in lengths]
    layout = pack(lengths, int(lengths.max()) + more, share_rows)
    with torch.no_grad():
        together = tiny_bert(tiny_bert.words(layout.place(sentences)), layout)
        alone = [pack(np.array([len(one)]), len(one)) for one in sentences]
        alone = torch.cat([tiny_bert(tiny_bert.words(where.place([one])), where) for one, where in zip(sentences, alone, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@examples(50)
@given(lengths, st.data())
def test_moved_states_are_those_of_whom_they_come_from(lengths, data):
    """Into a layout of pairs, as long as the longer of the two: the partner's states first, then zeros."""
    who = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    longer, room = np.maximum(lengths, lengths[who.numpy()]), data.draw(st.integers(0, 60))
    here, there = pack(lengths, int(lengths.max()) + room), pack(longer, int(lengths.max()) + data.draw(st.integers(0, 60)))
    states = torch.arange(1.0, here.owner.numel() + 1).view(*here.owner.shape, 1)
    moved = here.moved(states, there, who).flatten()
    assert not moved[there.owner.flatten() == NOTHING].any()
    for i, j in enumerate(who.tolist()):
        found = moved[there.first[i]:there.first[i] + longer[i]]
        expected = states.flatten()[here.first[j]:here.first[j] + lengths[j]]
        assert torch.equal(found[:lengths[j]], expected) and not found[lengths[j]:].any()


# ---------------------------------------------------------------- who is mixed with whom

# Small whole numbers: ties, duplicates and sentences without any direction abound.
states = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=7), elements=st.integers(-2, 2).map(float) | st.floats(-1e3, 1e3, width=32))


@examples(200)
@given(states, st.data())
def test_partners_are_those_of_a_stable_sort_in_numpy(h, data):
    n, hidden = h.shape[-2], torch.from_numpy(h)
    k = data.draw(st.integers(1, n - 1))
    scores = selection.similarities(hidden).numpy()
    exact = h.astype(float) / np.maximum(np.linalg.norm(h.astype(float), axis=-1, keepdims=True), 1e-12)
    np.testing.assert_allclose(scores, exact @ exact.swapaxes(-1, -2), atol=2e-6)
    for found, sign in ((selection.nearest(hidden, k), 1), (selection.farthest(hidden, k), -1), (selection.random_others(torch.from_numpy(scores), k), 1)):
        expected = np.argsort(np.where(np.eye(n, dtype=bool), math.inf, -sign * scores), axis=-1, kind="stable")[..., :k]
        np.testing.assert_array_equal(found, expected)
        assert not (found == torch.arange(n).unsqueeze(-1)).any()
    for batch in np.ndindex(h.shape[:-2]):  # by the same scores, as rounding may order near-ties otherwise
        scored = torch.from_numpy(scores)
        np.testing.assert_array_equal(selection.random_others(scored, k)[batch], selection.random_others(scored[batch], k))


@examples(200)
@given(st.integers(2, 300), st.integers(1, 200))
def test_k_never_asks_for_more_partners_than_there_are(n, k):
    found = selection.partners_each(n, k)
    assert 1 <= found <= k and (2 * found <= n - 1 or n == 2) and (found == k or 2 * (found + 1) > n - 1)


@examples(50)
@given(states, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_states_that_are_not_finite_have_no_partners(h, wrong, data):
    h[data.draw(st.sampled_from([*np.ndindex(h.shape)]))] = wrong
    scores = selection.similarities(torch.from_numpy(h))
    for choose, given_ in ((selection.nearest, torch.from_numpy(h)), (selection.farthest, torch.from_numpy(h)), (selection.random_others, scores)):
        with pytest.raises(ValueError, match="hold NaN or infinity"):
            choose(given_, 1)


@pytest.mark.filterwarnings("ignore:K = ")
@pytest.mark.parametrize("method, lr", [(name, lr) for name, row in METHODS.items() if row.mixes for lr in (1e-3, 0.0) if lr or row.level == "sentence"])
def test_a_state_that_is_not_finite_ends_the_run_of_every_method_that_mixes(tiny, method, lr):
    """One word piece, or at rate 0 one sentence, of the training sentences alone: no evaluation sees it."""
    run = Run(tiny(method=method, lr=lr))
    words, sentences = run.model.encoder.words, run.batches.sentences
    if lr:
        held = {piece for name in ("validation", "test") for one in run.tokenizer(limited(run.data, name, run.config.eval_limit).texts) for piece in one.tolist()}
        alone = next(piece for one in sentences for piece in one.tolist() if piece not in held)
        words.rows.data[words.local[alone]] = math.nan
    else:
        run.model.states = run.model.states.index_fill(0, torch.tensor([3]), math.nan)
        if "states" in run.memory:
            run.memory["states"] = run.model.states
    with pytest.raises(DnmError, match="the loss is no longer a finite number at step 3"):
        train(run)
    assert not run.history


# ---------------------------------------------------------------- mixtures and losses

finite = st.floats(-2.0**100, 2.0**100, width=32) | st.floats(-3, 3, width=32)


@examples(150)
@given(st.data(), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_mixture_lies_between_its_two_sentences(data, n, d, p):
    """Weights of a pair sum to one in each dimension; a sentence mixed with itself is itself."""
    def numbers(*shape):
        return torch.from_numpy(data.draw(arrays(np.float32, shape, elements=finite)))

    hidden, policy, partners = numbers(n, d), numbers(2, d), torch.from_numpy(data.draw(arrays(int, (n, p), elements=st.integers(0, n - 1))))
    weight = mixing.WEIGHTS["vector"](None, partners, policy)
    torch.testing.assert_close(weight + mixing.pair_softmax(policy[1], policy[0]), torch.ones(d), atol=1e-6, rtol=0)
    mixed, others = mixing.mix_inputs(hidden, partners, weight), hidden[partners]
    low, high = torch.minimum(hidden.unsqueeze(1), others), torch.maximum(hidden.unsqueeze(1), others)
    slack = 1e-6 * torch.maximum(low.abs(), high.abs()) + 1e-37  # smaller ones lose digits
    assert mixed.isfinite().all() and (mixed >= low - slack).all() and (mixed <= high + slack).all()
    own = torch.arange(n).unsqueeze(-1)
    torch.testing.assert_close(mixing.mix_inputs(hidden, own, weight).squeeze(1), hidden, rtol=1e-6, atol=1e-37)
    phi = mixing.label_policy(hidden, partners, weight, numbers(d, d) / 2.0**103)
    assert phi.shape == (n, p, d) and ((phi >= 0) & (phi <= 1)).all()


@examples(150)
@given(st.data(), st.integers(2, 5), st.integers(2, 4), st.integers(1, 3), st.booleans())
def test_losses_stay_in_their_range(data, n, c, p, counted):
    def numbers(*shape, elements=finite):
        return torch.from_numpy(data.draw(arrays(np.float32, shape, elements=elements)))

    labels = torch.from_numpy(data.draw(arrays(int, n, elements=st.integers(0, c - 1))))
    partners = torch.from_numpy(data.draw(arrays(int, (n, p), elements=st.integers(0, n - 1))))
    weight, scores, share = data.draw(st.floats(0, 1, width=32)), numbers(n, p, c, elements=st.floats(-1e4, 1e4, width=32)), st.floats(0.125, 8, width=32)
    counts = (numbers(n, 1, elements=share), numbers(n, p, elements=share)) if counted else None
    loss = mixing.mixed_cross_entropy(scores, labels.unsqueeze(-1), labels[partners], weight, counts)
    assert loss.isfinite() and loss >= 0
    each = mixing.mixed_cross_entropy(scores, labels.unsqueeze(-1), labels[partners], torch.full((n, p), weight), counts)
    if not counted:
        torch.testing.assert_close(each, loss, rtol=1e-4, atol=1e-4)
        own = torch.arange(n).unsqueeze(-1)
        plain = F.cross_entropy(scores[:, 0], labels)
        torch.testing.assert_close(mixing.mixed_cross_entropy(scores[:, :1], labels.unsqueeze(-1), labels[own], weight), plain, rtol=1e-4, atol=1e-4)
    vectors = numbers(n, p, c), numbers(n, 1, c), numbers(n, p, c)
    cosine = mixing.mixed_cosine_loss(*vectors, weight, counts)
    assert cosine.isfinite() and -1e-5 <= cosine <= 4.0001


# ---------------------------------------------------------------- the command line

OPTIONS = sorted({name for command in parser()._subparsers._group_actions[0].choices.values() for name in command._option_string_actions} - {"-h", "--help"})
arguments = st.sampled_from([*COMMANDS]) | st.sampled_from(OPTIONS) | st.sampled_from(OPTIONS).map(lambda name: name + "=x") | words | st.sampled_from([
    "--", "-", "-p", "--jobs", "0", "-1", "1e999", "NaN", "9" * 5000, "[" * 20_000, "{}", "0,1", "plain", "dnm,", "subj", "a b.csv", "-x.csv", "--x.csv", "\u05e9.csv", "\ud800.csv", "a\nb.csv",
    "%s", "%(prog)s", "'", "trian", "", " ", "\t", "@file", "builtin", "quick", "02", "table2", "speed", "steps", "dataset"])


@examples(200)
@given(st.lists(arguments, max_size=6) | st.tuples(st.sampled_from([*COMMANDS]), st.lists(arguments, max_size=6)).map(lambda both: [both[0], *both[1]]))
def test_any_arguments_end_in_an_exit_code_and_at_most_one_line(line):
    """What a command does is taken out: its arguments alone are read."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        for place in COMMANDS.values():
            patch.setattr(place.replace(":", "."), lambda **options: None)
        try:
            code = main(line)
        except SystemExit as left:  # --help, --version
            code = left.code
    said = error.getvalue()
    assert code in (0, 2) and "Traceback" not in said and (not code) == (not said), said
    assert not said or (said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n"))


@pytest.mark.parametrize("line, message", [
    (["fit", "x.csv", "--lr", "[" * 200_000], "no such file or folder: x.csv"), (["paper", "table2", "-p", "5", "x"], "unknown parameter '5'"),
    (["paper", "table2", "-p", "[1]", "x"], "unknown parameter '[1]'"), (["run", "02", "-p", "[1]", "x"], "unknown parameter of 02_distance_selection '[1]'"),
    (["paper", "table2", "-p", "steps", "1e999"], "steps must be a whole number, 10000000 at most, got inf"), (["train", "--dataset", "caf\udce9.csv"], "no character of a text in UTF-8"),
    (["fit", "a\nb.csv"], "no such file or folder: a b.csv"), (["fit", "--", "-x.csv"], "no such file or folder: -x.csv"),
    *((["paper", "table2", "-p", name, "1"], f"{name} is no setting of all runs here") for name in ("seeds", "sizes", "datasets", "name"))])
def test_names_and_values_that_look_like_something_else(line, message, capsys):
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
