"""Runs that are trained together: their parameters stacked, one step for all, on a GPU one CUDA graph a step.

A step of one run is too small to keep a GPU busy: the host, which launches hundreds of kernels, is what takes the
time. A fleet does S runs in the launches of one, and a graph launches them all at once. Each run keeps its own
sentences, draws, record and early history, and is the run it would be alone, apart from its rounding and its dropout
masks, which depend on its place in the fleet. Measured by ``dnm bench``; taught in notebook 04.
"""

import os
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from dnm.batches import Inputs
from dnm.config import RunConfig
from dnm.data.hub import family, model_folder
from dnm.data.pretrained import PACKED
from dnm.errors import DeviceLost, DnmError, reason
from dnm.heads import stream
from dnm.model import adamw, resolve_device
from dnm.packing import Layout, fitted
from dnm.training import Run, fit, own_randomness, train

WINDOW = 200  # steps whose inputs lie on the device at once, at most
_OWN = ("n_train", "method", "seed", "profile", "k", "alpha", "original_weight")  # settings that members may differ in
MOST = 16  # runs in a fleet; beyond it a GPU gains little


def kind(config: RunConfig) -> tuple | None:
    """What runs must have in common to share a fleet; None for those that only train alone.

    Those are rows that do not stack, such as logistic regression, which takes no steps, the LSTM, whose kernels cannot
    be stacked, and encoders of a family whose sentences are not packed, as not all of them can be stacked. At rate 0
    only heads are stacked.
    """
    row, encoder = config.row, config.encoder
    stacked = encoder == "cnn" or (encoder != "lstm" and family(encoder) in PACKED)
    if not row.stacks or not (stacked or config.frozen):
        return None
    common = tuple(value for name, value in config.to_dict().items() if name not in _OWN)
    batch = config.batch_size if config.n_train == "all" else min(config.batch_size, config.n_train)
    # Words are mixed before the encoder, by one rule for all; sentences after it, by the rule of each head.
    return (*common, batch, row.inputs if row.mixes_words or row.partners == "batch" else "")


def fleets(configs: list[RunConfig], size: int | None = None) -> list[list[RunConfig]]:
    """The runs in fleets of at most ``size`` (by default what the memory at hand allows), in their order."""
    kinds: dict = {}
    for config in configs:
        kinds.setdefault(kind(config) or config, []).append(config)
    found = []
    for group in kinds.values():
        most = size or fleet_size(group[0])
        group.sort(key=lambda config: config.frozen and config.method)  # heads of one row are one stack in theirs
        found += [group[start:start + most] for start in range(0, len(group), most)]
    return sorted(found, key=lambda group: configs.index(group[0]))


def fleet_size(config: RunConfig) -> int:
    """How many runs like this one fit the device at hand: on a CPU one, as stacking gains nothing there, or heads."""
    device, dtype = resolve_device(config)
    if config.frozen and kind(config):
        return MOST
    if device.type != "cuda" or kind(config) is None:
        return 1
    if config.encoder == "cnn":
        return MOST
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(model_folder(config.encoder), local_files_only=True)
    d, layers, width = shape.hidden_size, shape.num_hidden_layers, shape.intermediate_size
    parameters = layers * (4 * d * d + 2 * d * width) + shape.vocab_size * d
    tokens = 2 * config.batch_size * config.max_length  # rows are less than half full at worst
    # Weights, gradients, two moments and the best weights, 4 bytes each; activations after Korthikanti et al. (2022),
    # section 4.1, whose 34 and 5 count bytes at two a number.
    activations = tokens * layers * (34 * d + 5 * shape.num_attention_heads * config.max_length) * (1 if dtype else 2)
    try:
        free = torch.cuda.mem_get_info(device)[0]
    except RuntimeError:  # no room even to ask
        return 1
    return int(max(1, min(MOST, 0.8 * free // (20 * parameters + activations))))


def fit_fleet(configs: list[RunConfig], *, graph: bool | None = None, **options) -> list[tuple]:
    """`dnm.training.fit` for runs of one `kind`, together; a `DnmError` in the place of a record whose run has failed.

    ``graph`` says whether a step is recorded as a CUDA graph: by default on a GPU, even for a single run
    (``$DNM_GRAPH`` of 0: never, of 1: everywhere). Where that fails, or a kernel ruins the GPU for this process,
    `DeviceLost` is raised; where the memory is too small, torch's own error.
    """
    first, device = configs[0], resolve_device(configs[0])[0]
    if graph is None:
        graph = {"0": False, "1": True}.get(os.environ.get("DNM_GRAPH", ""), device.type == "cuda")
    try:
        if kind(first) is None or (len(configs) == 1 and not graph):
            return [fit(config, **options) for config in configs]
        with own_randomness(options.get("stop")):
            runs = [Run(config) for config in configs]
            train(Fleet(runs, graph), **options)
        return [(DnmError(run.failure) if run.failure else run.result(), run) for run in runs]
    except (DnmError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        lost = graph and kind(first)  # what a broken recording leaves behind (generators, streams) cannot be trusted
        try:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        except RuntimeError:  # it answers no more, as after an illegal memory access
            lost = True
        if lost:
            raise DeviceLost(reason(error)) from None
        raise


def usual_shape(lengths: np.ndarray, count: int, capacity: int, share_rows: bool, pairs: bool) -> tuple[int, int]:
    """Rows ``(R, T)`` that hold 500 random batches of ``count`` sentences with lengths like those given.

    A batch that needs more of them, which is rare, changes the shape and so the dropout masks of the whole fleet.

    ``pairs`` says that a sentence takes as much room as the longer one of a random pair.
    """
    drawn = np.random.default_rng(0).choice(lengths, (2, 500, count))
    return fitted(drawn.max(0) if pairs else drawn[0], capacity, share_rows)[1]


class Fleet:
    """S runs of one `kind`, whose parameters become views of the stacked ones that are trained.

    ``encoder`` holds the stacked parameters ``[S, ...]`` of the encoders, ``heads`` those of each group of runs with
    the same method, beside the runs' positions in the fleet. With ``graph``, a step is one replay of a CUDA graph.
    """

    def __init__(self, runs: list[Run], graph: bool = False):
        self.members, self.first, self.device = runs, runs[0], runs[0].device
        if len({(kind(run.config), run.batches.size) for run in runs}) > 1 or not kind(self.first.config):
            raise DnmError("these runs cannot be trained together: a fleet shares data set, encoder, batch, steps and "
                           "rates; logreg, lstm and encoders that are not packed cannot be in one")
        self.tables = self._share_words() if not self.first.config.frozen else {  # zeros behind the states of fewer
            "states": nn.utils.rnn.pad_sequence([run.model.states for run in runs], batch_first=True)}
        self.encoder = {name: self._stack(name, runs) for name in self.first.trained if name.startswith("encoder.")}
        groups: dict[tuple, list[int]] = {}
        for i, run in enumerate(runs):
            groups.setdefault((run.method, run.k, run.config.original_weight), []).append(i)
        self.heads = [(runs[members[0]].model.head, torch.tensor(members, device=self.device),
                       {name: self._stack(f"head.{name}", [runs[i] for i in members])
                        for name, _ in runs[members[0]].model.head.named_parameters()}) for members in groups.values()]
        self.order = torch.cat([members for _, members, _ in self.heads])
        self.losses = torch.zeros(len(runs), device=self.device)
        for run, losses in zip(runs, self.losses, strict=True):
            run.losses, run.evaluated, run.fleet = losses, self.first.evaluated, len(runs)
        self.graph, self.graphed = None, graph
        self.optimiser = adamw([*self.encoder.values()],
                               [p for *_, head in self.heads for p in head.values() if p.requires_grad],
                               self.first.config, capturable=self.graphed)
        self.shape = (0, 0)
        if not self.first.config.frozen:
            # Of all training sentences, as the shape must not depend on those that the members have drawn.
            lengths = np.array([len(sentence) for sentence in self.first.tokenizer(self.first.data.train.texts)])
            self.shape = usual_shape(lengths, self.first.batches.size, self.first.config.max_length,
                                     self.first.batches.share_rows, self.first.method.mixes_words)
        self.window, self.start, self.at = None, -1, torch.zeros(1, dtype=torch.long, device=self.device)

    def _share_words(self) -> dict[str, Tensor]:
        """Every run trains the rows that any of them uses: a row that is not its own gets no gradient and stays.

        Returns the stacked tables where they differ (random word vectors); else all runs share one.
        """
        used = torch.cat([run.model.encoder.words.ids for run in self.members]).unique()
        every = [run.model.encoder.words for run in self.members]
        for run in self.members:
            run.train_words(used)
        if not all(torch.equal(words.table, every[0].table) for words in every):
            return {"encoder.words.table": torch.stack([words.table for words in every])}
        for words in every:
            words.table = every[0].table
        return {}

    @staticmethod
    def _stack(name: str, runs: list) -> nn.Parameter:
        own = [run.model.get_parameter(name) for run in runs]
        stacked = nn.Parameter(torch.stack([p.detach() for p in own]), own[0].requires_grad)
        for parameter, view in zip(own, stacked.data, strict=True):
            parameter.data = view
        return stacked

    def train_step(self) -> None:
        """One optimiser step of every run, without waiting for the device."""
        step = self.first.step
        if step // WINDOW * WINDOW != self.start:
            self.load(step // WINDOW * WINDOW)
        self.at.fill_(step - self.start)
        if self.graphed and self.graph is None:
            self._capture()
        # Masks differ by place in the fleet; a key without the members keeps them from influencing each other.
        torch.manual_seed(stream("dropout", "fleet" if len(self.members) > 1 else self.first.config.seed, step))
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
        for run in self.members:
            run.step += 1

    def load(self, start: int) -> None:
        """Bring the inputs of the steps from ``start`` on to the device, ``[W, S, ...]``."""
        steps = range(start, min(start + WINDOW, self.first.config.steps))
        own = [run.batches.inputs(steps, self.shape) for run in self.members]
        if len({inputs.ids.shape for inputs in own}) > 1:  # an unusually full step of one of them
            shape = tuple(max(inputs.ids.shape[axis] for inputs in own) for axis in (-2, -1))
            own = [run.batches.inputs(steps, shape) for run in self.members]
        window = tree_map(lambda *tensors: torch.stack(tensors, 1), *own)
        if self.graph is not None and window.ids.shape[1:] == self.window.ids.shape[1:]:
            tree_map(lambda here, new: here[:len(new)].copy_(new, non_blocking=True), self.window, window)
        else:
            self.window, self.graph = window.to(self.device), None
        self.start = start

    def _compute(self) -> None:
        inputs = tree_map(lambda steps: steps.index_select(0, self.at).squeeze(0), self.window)
        self.first.model.train()
        hidden, losses = vmap(self._encode, randomness="different")(self.encoder, self.tables, inputs), []
        for head, members, parameters in self.heads:
            own = tree_map(lambda every, members=members: every.index_select(0, members),
                           (hidden, inputs.labels, inputs.draws))
            losses.append(vmap(lambda p, *batch, head=head: functional_call(head, p, batch))(parameters, *own))
        losses = torch.cat(losses)
        losses.sum().backward()  # the runs share no parameter, so each gets its own gradient
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.losses.index_add_(0, self.order, losses.detach())

    def _encode(self, parameters: dict, tables: dict, inputs: Inputs) -> Tensor:
        return functional_call(self.first.model, parameters | tables, (inputs,))

    def _capture(self) -> None:
        """Record a step as a CUDA graph; the steps that warm up for it leave no trace."""
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in (*trained, self.losses)]
        moments = {p: {name: value.clone() for name, value in self.optimiser.state[p].items()} for p in trained}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an optimiser made for a graph also takes steps without one
            for _ in range(3):
                self._compute()
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip((*trained, self.losses), before, strict=True):
                tensor.copy_(value)
            for p in trained:
                for name, value in self.optimiser.state[p].items():
                    value.copy_(moments[p][name]) if moments[p] else value.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        self.graph = graph

    def evaluate(self) -> None:
        """A row for every run's history; a run whose loss is no longer a number ends alone, with its ``failure``."""
        def encode(ids: Tensor, layout: Layout) -> Tensor:
            inputs = Inputs(ids, layout, None, None)
            return vmap(self._encode, in_dims=(0, 0, None))(self.encoder, self.tables, inputs)

        hidden = {} if self.first.config.frozen else {  # each run knows its own, all the same
            name: encoded.hidden(self.first.model.encoder, encode)
            for name, (encoded, _) in self.first.evaluated.items()}
        for i, run in enumerate(self.members):
            if not run.failure:
                try:
                    run.evaluate({name: states[i] for name, states in hidden.items()})
                except DnmError as error:
                    if len(self.members) == 1:
                        raise
                    run.failure = str(error)
