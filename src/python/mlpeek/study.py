"""A study: one directory with a model's activations on a corpus and all that was learnt from them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import binary, measured
from .activations import Activations
from .disk import member, names_with, read_json
from .errors import MlpeekError, about_file
from .evaluations import Evaluation
from .fits import Fit
from .hooks import Hook, choose, hook_of
from .notes import Note, read_descriptions, read_notes
from .saes import Sae
from .tables import table
from .tokens import Sample, Tokens, of_matrix, read_samples, read_tokens

_SCHEMA = 1


class Study:
    """A study that is open for reading. Files are mapped or read when they are first asked for; nothing is ever written.

    What needs the model (`steer`, `trace`, `features`, `effects`, `run`) is done by the `mlpeek` program.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: Its directory.
        self.path = Path(path)
        file = self.path / "study.json"
        if not file.is_file():
            raise MlpeekError(f"{self.path} is no study (it has no study.json): make one with mlpeek collect or mlpeek import")
        #: What `study.json` says.
        self.manifest: dict[str, Any] = read_json(file)
        schema = self.manifest.get("schema")
        if schema != _SCHEMA:
            raise about_file(file, f"study layout {schema!r} where this package reads {_SCHEMA}: open it with the version that made it")
        hooks, widths = (member(file, self.manifest, key, list) for key in ("hooks", "widths"))
        #: The hooks whose activations are there.
        self.hooks: list[Hook] = [hook_of(file, hook) for hook in hooks]
        if not hooks or len(hooks) != len(widths) or not all(type(w) is int and w > 0 for w in widths):
            raise about_file(file, "its hooks, widths and corpora do not fit each other; restore it from a copy")
        #: Values a row, by hook.
        self.widths: dict[Hook, int] = dict(zip(self.hooks, widths))
        #: Whether every sample has been collected.
        self.complete: bool = member(file, self.manifest, "complete", bool)
        #: What each corpus was: `name`, `sha256`, number of `samples`.
        self.corpora: list[dict[str, Any]] = member(file, self.manifest, "corpora", list)
        if not self.corpora or not all(isinstance(c, dict) and type(c.get("samples")) is int for c in self.corpora):
            raise about_file(file, "its hooks, widths and corpora do not fit each other; restore it from a copy")
        self._rows: int = member(file, self.manifest, "rows", int)
        model = self.manifest.get("model")
        if model is not None and not isinstance(model, dict):
            raise about_file(file, "has no \"model\" as mlpeek writes it")
        #: The model: `id`, `family`, `layers`, `d_model`, `d_mlp`, `vocab`, `weights_sha256`, `tokenizer_sha256`, `identity` and more;
        #: `None` for an imported matrix.
        self.model: dict[str, Any] | None = model

    def __repr__(self) -> str:
        model = self.model.get("id") if self.model else "an imported matrix"
        return f"<Study {self.path}: {model}, {', '.join(map(str, self.hooks))}>"

    @property
    def layers(self) -> list[int]:
        """The layers of the hooks, ascending, each once."""
        return sorted({hook.layer for hook in self.hooks})

    @property
    def bos(self) -> int | None:
        """The id of the token that mlpeek begins every text with; `None` where it begins with none."""
        rule, model = self.manifest.get("bos"), self.model
        if rule == "never" or model is None:
            return None
        identity = model.get("identity")
        if not isinstance(identity, dict):
            raise MlpeekError(f"{self.path} was made by a version that did not record the BOS token: its rule is {rule!r}")
        return identity.get("bos")

    # The rows.

    @cached_property
    def tokens(self) -> Tokens:
        """The n tokens that the rows of every array belong to."""
        if self.model is None:
            return of_matrix(self._rows if self.complete else 0)
        return read_tokens(self.path / "tokens.bin", self._rows, sum(c["samples"] for c in self.corpora))

    @cached_property
    def samples(self) -> list[Sample]:
        """The texts with their labels, those of all corpora one after the other."""
        if self.model is None:
            return [Sample(f"row {i}", None) for i in range(self._rows if self.complete else 0)]
        files = (self.path / f"tokens.samples-{i}.jsonl" for i in range(len(self.corpora)))
        return [sample for file, c in zip(files, self.corpora) for sample in read_samples(file, c["samples"])]

    @cached_property
    def labels(self) -> list[str]:
        """The labels, each once, in the order in which they first occur."""
        return list(dict.fromkeys(sample.label for sample in self.samples if sample.label is not None))

    @cached_property
    def row_labels(self) -> NDArray[np.int32]:
        """The label of each row's sample by its place in `labels`, `[n]`; −1 where it has none."""
        place = {label: i for i, label in enumerate(self.labels)}
        of_sample = np.array([place.get(sample.label, -1) if sample.label is not None else -1 for sample in self.samples], np.int32)
        return of_sample[self.tokens.samples]

    def hook(self, layer: int | None = None, hook: Hook | str | None = None) -> Hook:
        """The hook of that layer or site; which one need not be said where the study has one."""
        return choose(self.hooks, layer, hook)

    def activations(self, layer: int | None = None, hook: Hook | str | None = None) -> Activations:
        """The activations A `[n, d]` of a hook, mapped; see `Activations`."""
        place = self.hook(layer, hook)
        rows = len(self.tokens)
        if rows == 0:
            raise MlpeekError(f"{self.path} holds no rows yet: mlpeek collect --out {self.path} goes on")
        return Activations(self.path / "cache" / str(place), place, self.widths[place], rows)

    # Fits, notes, autoencoders, evaluations.

    @property
    def fits(self) -> dict[str, Fit]:
        """The fits by name, the newest last, as the directory holds them now."""
        fits = (Fit(self, name) for name in names_with(self.path / "fits", "config.json"))
        shown = [fit for fit in fits if fit.has_factors or fit.resumable or fit.curve]
        return {fit.name: fit for fit in sorted(shown, key=lambda fit: (fit.order, fit.name))}

    def fit(self, name: str | None = None) -> Fit:
        """A fit by its name, or the newest: of those that ended by themselves, else of those with factors."""
        if name is not None:
            names = names_with(self.path / "fits", "config.json")
            if name not in names:
                raise MlpeekError(f"the study has no fit '{name}': it has {', '.join(names) or 'no fit yet'}")
            return Fit(self, name)
        there = [fit for fit in self.fits.values() if fit.has_factors]
        finished = [fit for fit in there if fit.is_finished]
        if not there:
            raise MlpeekError(f"{self.path} has no finished fit: run mlpeek fit {self.path} --features 100")
        return (finished or there)[-1]

    def notes(self, fit: str | None = None) -> dict[int, Note]:
        """What a person noted of a fit's features, by feature."""
        return read_notes(self.path / "notes.json", fit or self.fit().name)[0]

    def unplaced_notes(self, fit: str | None = None) -> list[str]:
        """Notes whose feature a refit took away, a line each."""
        return read_notes(self.path / "notes.json", fit or self.fit().name)[1]

    def descriptions(self, fit: str | None = None) -> dict[int, dict[str, Any]]:
        """What a judge said of a fit's features, by feature."""
        return read_descriptions(self.path / "descriptions.json", fit or self.fit().name)

    @property
    def saes(self) -> dict[str, Sae]:
        """The sparse autoencoders by name, the newest last."""
        saes = [Sae(self, name) for name in names_with(self.path / "saes", "about.json")]
        return {sae.name: sae for sae in sorted(saes, key=lambda sae: (sae.order, sae.name))}

    def sae(self, name: str | None = None) -> Sae:
        """An autoencoder by its name, or the newest with weights."""
        there = self.saes
        if name is None:
            name = next((sae.name for sae in reversed(there.values()) if sae.has_weights), None)
            if name is None:
                raise MlpeekError(f"{self.path} has no SAE: mlpeek sae train {self.path}, or mlpeek sae load {self.path} PATH")
        if name not in there:
            raise MlpeekError(f"the study has no SAE '{name}': it has {', '.join(there) or 'none yet'}")
        return there[name]

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The evaluations of steering, by name."""
        names = names_with(self.path / "evaluations", "plan.json")
        return {name: Evaluation(self.path, name) for name in names}

    def verify(self) -> None:
        """Reads every file that has a checksum once; raises `MlpeekError` that names the first damaged one."""
        self.__dict__.pop("tokens", None)
        self.__dict__.pop("samples", None)
        rows, _ = len(self.tokens), self.samples
        for hook in self.hooks if rows else ():
            self.activations(hook=hook).verify()
        for fit in self.fits.values():
            fit.verify()
        for sae in self.saes.values():
            if sae.has_weights:
                sae.weights

    # What the program does.

    def run(self, command: str, *words: str | os.PathLike[str], **options: Any) -> list[dict[str, Any]]:
        """Runs `mlpeek COMMAND STUDY WORDS --json` and gives the objects that it printed, for instance
        `study.run("eval detection", methods="fit,diffmean")` or `study.run("tree", cut=0.9)`.

        `mlpeek guide json` lists the fields of each command; an option's name is that of the command line with `_` for `-`. Raises
        `MlpeekError` with the program's line where it fails.
        """
        return binary.run(*command.split(), self.path, *words, *binary.options(**options))

    def _one(self, command: str, *words: str, **options: Any) -> dict[str, Any]:
        lines = self.run(command, *words, **options)
        if len(lines) != 1:
            raise MlpeekError(f"mlpeek {command} printed {len(lines)} lines where one is due: is the program of another version?")
        return lines[0]

    def steer(
        self,
        directions: str | int,
        prompt: str | list[str] = "I think that",
        *,
        kl: float | None = None,
        alpha: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Steers with features or other directions (`14`, `"3:1,17:-0.5"`, `"diffmean:months"`) and continues the prompts.

        The strength is `alpha` or, by default at 0.25, what brings `kl` about. Options are those of `mlpeek steer`: `mode`, `sign`,
        `positions`, `max_tokens`, `samples`, `temperature` (0 is greedy), `top_k`, `top_p`, `seed`, `fit`, `layer`, `hook`, `model`,
        `device`, `dtype`. The object has `alpha`, `kl`, `baseline` and `steered` (texts without their prompts), `risen`, `fallen`.
        """
        return self._one("steer", str(directions), prompt=prompt, kl=kl, alpha=alpha, **options)

    def trace(self, text: str, *, fit: str | None = None, **options: Any) -> dict[str, Any]:
        """Reads a text and finds which features fire at which of its tokens: `tokens` (t of them), `coefficients` (objects of `feature`
        and t `values`), `unexplained` (t numbers). Options: `model`, `device`, `dtype`."""
        return self._one("trace", text=text, fit=fit, **options)

    def features(self, directions: str | None = None, *, frame: bool | None = None, **options: Any) -> Any:
        """The list of features of the newest fit, or of other sets (`"fit:k100,diffmean"`), with tokens, purity, promoted tokens.

        A pandas data frame where pandas is there, else a list of dicts; `frame` asks for one of the two. Options: `fit`, `layer`,
        `hook`, `model`, `device`, `dtype`. `fit.features()` needs neither the program nor a model.
        """
        return table(self.run("features", directions=directions, **options), frame)

    def feature(self, direction: str | int, **options: Any) -> dict[str, Any]:
        """One feature or other direction whole: contexts, neurons, promoted tokens, related features; options as of `features`."""
        return self._one("feature", str(direction), **options)

    def effects(self, directions: str | None = None, **options: Any) -> list[dict[str, Any]]:
        """Measures what each direction of a set does to the next token, once, and keeps it in the study; after that
        `Direction.residual` knows what it adds to the residual stream. Options: `kl`, `prompt`, `fit`, `layer`, `hook`, `model`."""
        return self.run("effects", directions=self._typed(directions), **options)

    def _typed(self, directions: str | None) -> str | None:
        """A fit's name as the program takes it among sets of directions."""
        return f"fit:{directions}" if directions in names_with(self.path / "fits", "config.json") else directions

    def _push(self, hook: Hook, name: str, columns: NDArray[np.float32], feature: int) -> NDArray[np.float32]:
        model = self.model or {}
        d_model, vocab = model.get("d_model"), model.get("vocab")
        if type(d_model) is not int or type(vocab) is not int:
            raise MlpeekError("an imported matrix has no model that could be asked: collect a study with one")
        return measured.push(self.path, str(model.get("weights_sha256")), d_model, vocab, hook, name, columns, feature)
