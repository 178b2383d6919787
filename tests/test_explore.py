"""What notebooks and widgets show: measures and drawings against NumPy, the paper's numbers, parameters, widgets."""

import base64
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from dnm import selection
from dnm.batches import Encoded
from dnm.classify.estimator import DNMClassifier
from dnm.errors import DnmError
from dnm.mixing import pair_softmax
from dnm.notebook import widgets
from dnm.notebook.batch import notebooks, run_batch
from dnm.notebook.parameters import check, check_injected, declared
from dnm.plots import charts, drawings
from dnm.runs.store import RunStore
from dnm.study import explore
from dnm.training import Run, fit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tiny) -> Run:
    return Run(tiny(method="dnm", k=3))


@pytest.fixture(scope="module")
def batch(run) -> explore.Batch:
    return explore.Batch.first(run)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ---------------------------------------------------------------- measures

def test_a_batch_holds_the_first_steps_sentences_and_their_states(run, batch):
    index = run.batches(0)
    assert batch.texts == [run.train.texts[i] for i in index]
    alone = torch.cat([Encoded([run.batches.sentences[i]], False, 64, "cpu").hidden(run.model.encoder) for i in index])
    torch.testing.assert_close(batch.hidden, alone, atol=1e-5, rtol=1e-5)


def test_spread_knows_a_line_a_plane_and_the_distance_from_the_segment():
    first, second = torch.zeros(3), torch.tensor([2.0, 0.0, 0.0])
    t = torch.linspace(0, 1, 50).unsqueeze(1)
    line = explore.spread(first + t * (second - first), first, second)
    assert line["dimensions"] == pytest.approx(1, abs=1e-6) and line["off_segment"] == pytest.approx(0, abs=1e-6)
    lifted = first + t * (second - first) + torch.tensor([0.0, 1.0, 0.0])
    assert explore.spread(lifted, first, second)["off_segment"] == pytest.approx(0.5, abs=1e-6)
    ball = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    assert explore.spread(ball, first, second)["dimensions"] == pytest.approx(3, abs=0.05)


def test_moves_are_those_of_the_parameters_and_within_what_adam_allows(tiny):
    config = tiny(method="dnm", steps=4, head_lr=1e-3)
    found = explore.moves(config, lambda line: None).set_index("parameter")
    before, after = Run(config), fit(config.with_(eval_every=4))[1]
    for name in ("input_policy", "label_policy", "label_embedding"):
        start, end = (run.trained[f"head.{name}"].detach().cpu().numpy() for run in (before, after))
        assert found["mean"][name] == pytest.approx(np.abs(end - start).mean(), rel=1e-4) and found.spread[name] == pytest.approx(start.std(ddof=1), rel=1e-5)
    assert (found.most <= 1.01 * found["rate × steps"]).all() and found["rate × steps"].iloc[0] == pytest.approx(4e-3)


def test_purity_and_shares_agree_with_numpy(batch):
    h, labels = batch.hidden.numpy(), batch.labels
    order = np.argsort(-(unit(h) @ unit(h).T) + 9 * np.eye(len(h)), axis=1)[:, :3]
    assert explore.purity(h, labels, 3) == pytest.approx(np.mean(labels[order] == labels[:, None]))
    assert explore.same_label_share(labels, selection.nearest(batch.hidden, 3)) == pytest.approx(
        np.mean(labels[order] == labels[:, None]))
    far_apart = np.concatenate([np.eye(2)[[0] * 5] + 1e-3 * np.arange(10).reshape(5, 2), np.eye(2)[[1] * 5]])
    assert explore.silhouette(far_apart, np.repeat([0, 1], 5), metric="euclidean") > 0.95


def test_the_plane_keeps_the_largest_variance(batch):
    h = batch.hidden.numpy() - batch.hidden.numpy().mean(0)
    values = np.linalg.svd(h, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(explore.plane(batch.hidden), axis=0), values[:2], rtol=1e-4)


def test_mixed_points_are_equation_2_within_batches(batch):
    weight = np.random.default_rng(0).random(batch.hidden.shape[1]).astype("float32")
    count, points = len(batch.texts), explore.mixtures(batch, 2, torch.from_numpy(weight), size=6)[0]
    nearest, farthest = points[count:].reshape(2, count // 6 * 6, 2, -1)  # a short last batch is left out
    few, groups, texts = explore.mixtures(batch, 5, torch.from_numpy(weight))  # one batch of 12: K = 5 has room
    assert len(few) == len(groups) == len(texts) == count + 2 * 5 * count and texts[-1] == f"(mixed) {batch.texts[-1]}"
    h = batch.hidden.numpy()[6:12]
    cosines = unit(h) @ unit(h).T
    for mixed, sign in ((nearest, -1), (farthest, 1)):
        scores = sign * cosines + np.where(np.eye(6), np.inf, 0)
        partner = h[np.argsort(scores, axis=1, kind="stable")[:, :2]]
        np.testing.assert_allclose(mixed[6:12], weight * h[:, None] + (1 - weight) * partner, rtol=1e-4, atol=1e-5)


def test_following_the_policies_trains_the_same_run_as_fit(tiny):
    config = tiny(method="dnm", k=3)
    _, snapshots = explore.follow_policies(config, 2, tell=lambda line: None)
    assert [s.step for s in snapshots] == [0, 2, 4, 6]
    _, fitted = fit(config.with_(eval_every=6))
    v = fitted.model.head.input_policy.detach()
    assert np.array_equal(snapshots[-1].input_weight, pair_softmax(v[0], v[1]).numpy())
    assert np.array_equal(snapshots[-1].label_embedding, fitted.model.head.label_embedding.detach().numpy())
    assert not np.array_equal(snapshots[0].input_weight, snapshots[-1].input_weight)
    with pytest.raises(DnmError, match="learns no mixing policies"):
        explore.follow_policies(tiny(method="plain"), 2)


def test_tsne_keeps_groups_together_and_depends_on_its_start():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(30, 8)) + 8 * np.eye(8)[g] for g in (0, 1, 2)])
    labels = np.repeat([0, 1, 2], 30)
    first, again, other = (explore.tsne(points, 10, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert explore.purity(first, labels, metric="euclidean") > 0.95
    with pytest.raises(DnmError, match="perplexity must lie between"):
        explore.tsne(points, 90)


# ---------------------------------------------------------------- drawings

def plain(figure: go.Figure) -> list[dict]:
    """A figure's traces with lists for arrays, however they are packed."""
    def unpacked(value):
        if isinstance(value, dict) and "bdata" in value:
            return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
        if isinstance(value, dict):
            return {key: unpacked(part) for key, part in value.items()}
        return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple | list) else value

    return [unpacked(trace.to_plotly_json()) for trace in figure.data]


@pytest.mark.parametrize("name, values", [("policy", explore.POLICIES), ("alpha", [0.1, 1.0, 5.0])])
def test_a_slider_shows_in_each_frame_what_drawing_it_anew_shows(name, values):
    figure = drawings.with_slider(drawings.playground, name, values, active=1)
    shown = plain(figure)
    assert shown == plain(drawings.playground(**{name: values[1]}))
    assert [step.args[0][0] for step in figure.layout.sliders[0].steps] == [frame.name for frame in figure.frames]
    for value, frame in zip(values, figure.frames, strict=True):
        moved = [go.Figure([old]).update_traces(new.to_plotly_json()).data[0] for old, new in
                 zip(figure.data, frame.data, strict=True)]
        assert plain(go.Figure(moved)) == plain(drawings.playground(**{name: value}))


def test_the_playgrounds_mixtures_lie_where_equation_1_puts_them():
    ends = np.array([*zip(*(drawings.playground("scalar").data[3][axis] for axis in "xy"), strict=True)])
    for policy, weights in (("scalar", (0.25, 0.25)), ("vector", (0.25, 0.75))):
        star = drawings.playground(policy, 1.0, *weights).data[4]
        expected = np.array(weights) * ends[0] + (1 - np.array(weights)) * ends[1]
        np.testing.assert_allclose([star.x[0], star.y[0]], expected)
    for policy in explore.POLICIES:
        figure = drawings.playground(policy, 0.3)
        cloud, reach = (np.array([trace.x, trace.y]) for trace in (figure.data[1], figure.data[0]))
        assert (reach.max(axis=1) + 1e-9 >= cloud.T).all() and (reach.min(axis=1) - 1e-9 <= cloud.T).all()
    density = drawings.playground("scalar", 2.0).data[5]
    np.testing.assert_allclose(density.y[5:-5], 6 * density.x[5:-5] * (1 - density.x[5:-5]), atol=0.01)  # Beta(2, 2)


def test_partners_are_drawn_in_the_order_of_their_cosines_and_escaped(batch):
    cosines = selection.similarities(batch.hidden).numpy()
    texts = ["<script>alert(1)</script> & more", *batch.texts[1:]]
    marked = explore.Batch(texts, batch.labels, batch.label_names, batch.hidden)
    figure = drawings.partners(marked, explore.plane(batch.hidden), cosines, sentence=4, k=3)
    bars = figure.data[2]
    order = np.argsort(-cosines[4])[[*range(4), -3, -2, -1]]  # itself, its nearest and its farthest
    np.testing.assert_allclose(bars.x, cosines[4][order], atol=1e-6)
    assert list(bars.marker.color[:4]) == ["#000000", *[drawings.BLUE] * 3] and list(bars.marker.color[-3:]) == [drawings.ORANGE] * 3
    assert "<script" not in figure.to_json() and "&lt;script" in figure.to_json()
    two = explore.Batch(batch.texts[:2], batch.labels[:2], batch.label_names, batch.hidden[:2])
    assert list(drawings.partners(two, explore.plane(batch.hidden)[:2], cosines[:2, :2]).data[2].marker.color) == ["#000000", drawings.BLUE]
    heat = drawings.cosine_matrix(marked, cosines)
    by_label = np.argsort(batch.labels, kind="stable")
    np.testing.assert_allclose(heat.data[0].z, cosines[np.ix_(by_label, by_label)], atol=1e-3)
    assert "<script" not in heat.to_json()
    places = explore.plane(batch.hidden)
    assert "<script" not in drawings.clouds(places, ["<b>"] * len(texts), texts, "t").to_json()
    assert "<script" not in drawings.sentence(np.array([0.1, 0.2]), ["<script>", "b"], np.array([0.5]), texts[:1], texts[0]).to_json()


LONG = "it's a <b>thoroughly</b> lengthy & rambling sentence that never gets near its point , " * 3
HARD = {"many": (100, 12), "twenty": (20, 12), "one class": (20, 1), "two": (2, 2)}


@pytest.fixture(params=HARD)
def hard(request) -> explore.Batch:
    """A batch with what pictures break at: long texts and names, markup, many classes or one, negative cosines."""
    count, classes = HARD[request.param]
    names = tuple(f"<i>a class</i> with a very long name & number {i}" for i in range(classes))
    hidden = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    return explore.Batch([(LONG, "no .")[i % 3 == 0] for i in range(count)], np.arange(count) % classes, names, hidden)


def test_sentences_and_numbers_find_room_whatever_they_are(hard):
    cosines, places = selection.similarities(hard.hidden).numpy(), explore.plane(hard.hidden)
    pictures = [drawings.partners(hard, places, cosines, 0, k) for k in (1, 3, 9)]
    scores = np.linspace(-0.996, 0.3, len(hard.label_names))
    pictures += [drawings.sentence(scores, hard.label_names, cosines[0, :6], hard.texts[:6], LONG, kind)
                 for kind in ("cosine", "score")]
    for figure in pictures:
        assert "<i>" not in figure.to_json().replace("\\u003c", "<")
        assert figure.layout.height <= 500 and not figure.layout.showlegend  # with its controls above JupyterLab's fold
        for bars, words in zip(figure.select_traces(dict(type="bar")), figure.select_traces(dict(mode="text")), strict=True):
            axis = figure.layout["yaxis" + words.yaxis[1:]]
            pixels = (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b) / (axis.range[0] - axis.range[1])
            assert all(14 * (text.count("<br>") + 1) <= pixels for text in words.text)  # no line lies on another
            assert words.xaxis != bars.xaxis and bars.text is None  # nothing stands at a bar's end, to be hidden or clipped
            low, high = figure.layout["xaxis" + bars.xaxis[1:]].range
            assert low <= min(bars.x) and max(bars.x) <= high
            for value, text in zip(bars.x, words.text, strict=True):
                assert text.startswith(f"<b>{value:z.3f}</b>".replace("-", "−"))
    assert len({len(picture.data) for picture in pictures[:3]}) == 1
    heat = drawings.cosine_matrix(hard, cosines)
    assert heat.layout.yaxis.showticklabels == (len(hard.texts) <= 30)


def test_partners_and_neighbours_are_read_without_hovering(batch):
    texts = [" ".join(f"word{i}" for i in range(n, n + 20)) for n in range(len(batch.texts))]  # of about 135 characters
    told = explore.Batch(texts, batch.labels, batch.label_names, batch.hidden)
    cosines = selection.similarities(batch.hidden).numpy()
    for figure, known in ((drawings.partners(told, explore.plane(batch.hidden), cosines, 0, 5), texts),
                          (drawings.sentence(np.array([0.7, -0.2]), ["a", "b"], cosines[0, :6], texts[:6], "x"), texts[:6])):
        shown = [text.replace("<br>", " ") for text in list(figure.select_traces(dict(mode="text")))[-1].text]
        assert all(any(text in line for text in known) for line in shown)
    many = drawings.sentence(np.linspace(-1, 1, 40), [f"class {i}" for i in range(40)], cosines[0, :1], texts[:1], "x")
    assert many.data[0].x[0] == 1 and len(many.data[0].x) == 10  # of many classes the best


def test_every_cloud_fills_its_frame_and_no_class_is_lost():
    points = np.random.default_rng(0).normal(size=(40, 2))
    names = [f"a class with a very long name indeed {i}" for i in range(12)]
    groups = [names[i % 12] for i in range(40)]
    for scale in (1e-3, 80):  # t-SNE's pictures of perplexity 60 and of 2 differ as much
        figure = drawings.clouds(scale * points + 5, groups, groups, "t")
        drawn = np.concatenate([np.c_[trace.x, trace.y] for trace in figure.data])
        assert np.abs(drawn).max() == pytest.approx(1) and np.ptp(drawn, axis=0).max() == pytest.approx(2)
        assert figure.layout.xaxis.range == figure.layout.yaxis.range == (-1.08, 1.08)
    whole = drawings.panels([drawings.clouds(points, groups, groups, "") for _ in range(5)], ["a<br>b " * 20] * 5, "t")
    assert sum(trace.showlegend for trace in whole.data) == 12  # though their names are cut to the same
    assert len({axis.domain for axis in whole.select_xaxes()}) == 3  # three in a row, or their titles would overlap
    moving = drawings.with_slider(lambda scale: drawings.clouds(scale * points, groups, groups, "t"), "scale", [1, 9])
    assert all(frame.layout.xaxis.range is None for frame in moving.frames)  # else a square would be stretched by its frame
    assert np.isfinite(drawings.clouds(points[:1], ["one"], ["one"], "t").data[0].x).all()


def test_charts_stay_on_the_page_with_many_and_long_names():
    names = [f"<i>a class</i> with a very long name indeed {i}" for i in range(40)]
    for count in (1, 12, 40):
        figure = charts.confusion(np.eye(count), names[:count], LONG)
        assert figure.layout.width <= 820 and figure.layout.height <= 800 and len(set(figure.data[0].x)) == count
        assert max(map(len, figure.layout.xaxis.ticktext)) <= 22 + len("&lt;&gt;&lt;&gt;") - 4
        assert (figure.data[0].text[0][0] == "1<br>100%") == (count <= 12)  # of more the numbers cannot be read
    title = charts.lines([1, 2], {LONG: [1, 2]}, LONG, "x", "y").layout.title.text
    assert title.count("<br>") == 1 and title.endswith("…") and "<b>" not in title


# ---------------------------------------------------------------- parameters

def test_parameters_are_checked_against_the_notebook():
    for path in notebooks():
        kinds = declared(path)
        assert kinds and all(kind in ("str", "int", "float", "bool", "list") for kind in kinds.values()), path.name
    known = {"dataset": "str", "n_train": "int", "methods": "list", "alpha": "float", "quiet": "bool", "seed": "int"}
    check(dict(dataset="subj", n_train="all", methods="plain,dnm", alpha=1, quiet=True), known, "it")
    for name, value, message in [("datset", "subj", "did you mean 'dataset'"), ("n_train", "few", "must be int"),
                                 ("n_train", True, "must be int"), ("alpha", "1", "must be float"), ("quiet", 1, "must be bool"), ("methods", True, "must be list"),
                                 ("dataset", 3, "must be str"), ("methods", 1.5, "must be list"), ("seed", "all", "must be int")]:
        with pytest.raises(DnmError, match=message):
            check({name: value}, known, "it")


def test_injected_names_are_checked_inside_the_notebook():
    cells = ["", "import os", 'dataset: str = "builtin"  # x\nk: int = 5  # y', "# Parameters\nk = 3\n", "check_injected(In)"]
    check_injected(cells)
    check_injected([*cells[:3], "check_injected(In)"])
    with pytest.raises(DnmError, match="did you mean 'dataset'"):
        check_injected([*cells[:3], '# Parameters\ndatset = "subj"\n', cells[-1]])


def test_a_batch_job_refuses_what_no_notebook_knows_before_it_starts(tmp_path):
    with pytest.raises(DnmError, match="did you mean 'methods'"):
        run_batch(["02", "04"], ["builtin"], tmp_path, {"method": "dnm"})
    with pytest.raises(DnmError, match="unknown data set"):
        run_batch(["02"], ["bultin"], tmp_path, {})
    for wrong, message in ((dict(methods="plain,dmn"), "dnm"), (dict(profile="smok"), "smoke"), (dict(sizes="fifty"), "n_train must")):
        with pytest.raises(DnmError, match=message):
            run_batch(["4"], ["builtin"], tmp_path, wrong)
    with pytest.raises(DnmError, match="unknown notebook"):
        run_batch(["09"], ["builtin"], tmp_path, {})
    with pytest.raises(DnmError, match="07_your_data.ipynb cannot take data set 'mr'"):
        run_batch(["07"], ["mr"], tmp_path, {})
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- widgets, without a browser

def test_widgets_redraw_in_place(run, batch):
    explorer = widgets.partner_explorer(batch, 2)
    before = explorer.figure.data[2].x
    explorer.controls["sentence"].value = 5
    assert explorer.figure.data[2].x != before
    np.testing.assert_array_equal(explorer.figure.data[2].x, explorer.draw(5, 2).data[2].x)
    assert "sentence 5" in explorer.figure.layout.title.text
    _, snapshots = explore.follow_policies(run.config, 3, tell=lambda line: None)
    policies = widgets.policy_explorer(snapshots)
    assert policies.controls["step"].value == run.config.steps and np.any(policies.figure.data[0].y)  # not on a flat line
    tops = {policies.draw(s.step).layout.yaxis2.range for s in snapshots}
    assert len(tops) == 1 and tops.pop()[1] > max(s.label_shares.max() for s in snapshots)
    playground = widgets.playground()
    playground.controls["alpha"].value = 10**-0.95
    assert "α = 0.11)" in playground.figure.layout.title.text
    for widget in (explorer, policies, playground):
        widths = [int(control.layout.width[:-2]) for control in widget.controls.values()]
        rows = -(-len(widths) // (widgets.WIDTH // (max(widths) + 4)))  # two controls side by side
        assert widget.figure.layout.height + 36 * rows <= 560
    box = widgets.sentence_box(DNMClassifier.of(run), batch, batch.texts[0])
    assert box.figure.data[2].x[0] == pytest.approx(1, abs=1e-4)  # it is among the known ones
    box.controls["sentence"].value = ""
    assert batch.texts[0][:20] in box.figure.layout.title.text
    bundle = explorer._repr_mimebundle_()
    text = (bundle[0] if isinstance(bundle, tuple) else bundle)["text/plain"]
    assert len(text) < 200 and "JupyterLab" in text


def test_live_training_runs_stops_and_goes_on(tiny, tmp_path):
    live = widgets.live_training(tiny(method="plain", steps=60, eval_every=5), RunStore(tmp_path))
    live.begin()
    live.begin()  # a second press does nothing
    while not (live.status and live.status.row):
        live.thread.join(0.05)
    live.asked.set()
    live.thread.join(30)
    assert "press Start" in live.line.value and not live.start.disabled and live.stop.disabled
    stopped = list(live.figure.data[0].x)
    assert 0 < len(stopped) < 12 and not list(tmp_path.glob("*.json"))
    seen, show = [], live._show
    live._show = lambda status: (show(status), seen.append(list(live.figure.data[0].x)))
    live.begin()
    live.thread.join(60)
    assert seen[1][:len(stopped)] == stopped  # the curve goes on, it does not begin anew
    assert list(live.figure.data[0].x) == list(range(5, 61, 5)) and list(tmp_path.glob("*.json"))
    broken = widgets.live_training(tiny(method="plain", dataset=str(tmp_path / "none.csv")), RunStore(tmp_path))
    broken.begin()
    broken.thread.join(30)
    assert "error: no such data file" in broken.line.value
