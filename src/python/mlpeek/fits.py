"""Fits of a study: A ≈ Y Zᵀ with Y ≥ 0, their settings, error curves, names and notes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .directions import Direction
from .disk import StoredFile, mapped, member, number, read_bytes, read_json, read_json_lines, read_safetensors
from .errors import MlpeekError, about_file
from .hooks import Hook, hook_of
from .notes import Note
from .tables import table

if TYPE_CHECKING:
    from .study import Study

# A feature fires at a token where its coefficient is above this share of its own maximum.
_FIRES = np.float32(0.05)


@dataclass(frozen=True)
class SparseColumns:
    """A matrix `[d, k]` with few entries, by column: column j has `values[offsets[j]:offsets[j+1]]` at the rows
    `indices[offsets[j]:offsets[j+1]]`. The three arrays are mapped from the file.

    `np.asarray(z)` is the dense matrix, `z.to_scipy()` a sparse one.
    """

    #: d and k.
    shape: tuple[int, int]
    #: `[k + 1]` uint64.
    offsets: NDArray[np.uint64]
    #: `[entries]` uint32, ascending within a column.
    indices: NDArray[np.uint32]
    #: `[entries]` float32.
    values: NDArray[np.float32]

    def column(self, j: int) -> NDArray[np.float32]:
        """Column j, dense `[d]`."""
        d, k = self.shape
        if not -k <= j < k:
            raise IndexError(f"column {j} of {k}")
        part = slice(int(self.offsets[j % k]), int(self.offsets[j % k + 1]))
        out = np.zeros(d, np.float32)
        out[self.indices[part]] = self.values[part]
        return out

    def counts(self) -> NDArray[np.int64]:
        """The entries of each column `[k]`: neurons of each feature."""
        offsets = self.offsets.astype(np.int64)
        return offsets[1:] - offsets[:-1]

    def dense(self) -> NDArray[np.float32]:
        """The dense matrix `[d, k]`."""
        out = np.zeros(self.shape, np.float32)
        out[self.indices, np.repeat(np.arange(self.shape[1]), self.counts())] = self.values
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the dense matrix is always a copy")
        return self.dense().astype(dtype, copy=False) if dtype is not None else self.dense()

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csc_array` over the same memory."""
        from scipy.sparse import csc_array

        return csc_array((self.values, self.indices.astype(np.int64), self.offsets.astype(np.int64)), shape=self.shape)


class Fit:
    """A fit with saved factors: A `[n, d]` ≈ Y `[n, k]` · Zᵀ `[k, d]` (plus `centre`), Y ≥ 0.

    Opening one reads its `config.json` alone; Z and Y are mapped when they are first asked for.
    """

    def __init__(self, study: Study, name: str) -> None:
        #: Its name, which the commands take as `--fit`.
        self.name = name
        #: Its directory.
        self.path: Path = study.path / "fits" / name
        self._study = study
        self._config_path = path = self.path / "config.json"
        file = read_json(path)
        #: Grows with every start and save in the study.
        self.order: int = member(path, file, "order", int)
        saved = file.get("saved")
        if saved is not None and not isinstance(saved, dict):
            raise about_file(path, "has no \"saved\" as mlpeek writes it")
        self._saved: dict[str, Any] | None = saved
        about = saved if saved is not None else file
        #: Where in the model.
        self.hook: Hook = hook_of(path, about.get("hook"))
        #: What was asked for: `features`, `solver`, `sparsity`, `seed` and the others, as the options of `mlpeek fit`.
        self.config: dict[str, Any] = member(path, about, "config", dict)
        #: ‖A − Y Zᵀ‖² / ‖A‖² of the saved factors; `None` where none are saved yet.
        self.relative_error: float | None = number(path, about, "relative_error")
        #: The same as a fit that scales neurons or rows weighs it.
        self.weighted_error: float | None = number(path, about, "weighted_error")
        #: 1 − the squared error over the variance around the mean row.
        self.explained_variance: float | None = number(path, about, "explained_variance")
        #: Sweeps after which the factors were saved.
        self.sweeps: int = member(path, saved, "sweeps", int) if saved else 0
        #: Seconds of fitting until then.
        self.seconds: float = (number(path, about, "seconds") or 0.0) if saved else 0.0
        #: n, k and d of the saved factors.
        self.row_count: int = member(path, saved, "rows", int) if saved else 0
        self.feature_count: int = member(path, saved, "features", int) if saved else 0
        self.neuron_count: int = member(path, saved, "neurons", int) if saved else 0
        #: `converged`, `max_sweeps`, `stopped`, or `cut` (nothing saved, or still running).
        self.state: str = self._state()

    def __repr__(self) -> str:
        error = "no factors yet" if self.relative_error is None else f"error {self.relative_error:.4f}"
        return f"<Fit {self.name}: {self.feature_count} features at {self.hook}, {error}, {self.state}>"

    @property
    def layer(self) -> int:
        """The layer of its hook, from 0."""
        return self.hook.layer

    @property
    def has_factors(self) -> bool:
        """Whether Z and Y are there."""
        return self._saved is not None

    @property
    def is_finished(self) -> bool:
        """Whether its run ended by itself."""
        return self.has_factors and self.state in ("converged", "max_sweeps")

    @property
    def resumable(self) -> bool:
        """Whether `mlpeek fit --resume` can go on from a checkpoint."""
        return (self.path / "checkpoint").is_file()

    def _state(self) -> str:
        # The same rules as the program's: how a save's own run ended, unless another run was begun after it.
        saved = self._saved
        if saved is None:
            return "cut"
        try:
            last = self.curve[-1] if self.curve else None
        except MlpeekError:
            # The factors do not depend on the curve; `curve` says what is wrong with it.
            last = None
        order = os.path.basename(str((saved.get("z") or {}).get("file"))).removeprefix("Z-").split(".")[0]
        later = not order.isdecimal() or int(order) < self.order
        begun_again = later and self.resumable and last is not None and last.get("stop") is None
        ended = saved.get("ended")
        if isinstance(ended, dict) and not begun_again:
            return str(ended.get("state"))
        if last is not None and last.get("stop") is not None:
            return str(last["stop"])
        return "stopped" if self.resumable else "converged"

    @cached_property
    def curve(self) -> list[dict[str, Any]]:
        """The error after each sweep: objects of `sweep`, `relative_error`, `seconds`, `stop`."""
        return read_json_lines(self.path / "loss.jsonl")

    def _factors(self) -> dict[str, Any]:
        if self._saved is None:
            raise MlpeekError(f"fit '{self.name}' has saved no factors yet: mlpeek fit {self._study.path} --name {self.name} --resume")
        return self._saved

    @cached_property
    def Y(self) -> NDArray[np.float32]:
        """The coefficients `[n, k]`, float32, mapped: row i is token i, column j feature j (whose values lie side by side)."""
        file = StoredFile(self._config_path, member(self._config_path, self._factors(), "y", dict))
        file.check_length()
        n, k = self.row_count, self.feature_count
        if file.bytes != 4 * n * k:
            raise about_file(self._config_path, "its sizes do not fit the saved factors; fit again")
        return mapped(file.path, "<f4", (k, n)).T

    @cached_property
    def _columns(self) -> tuple[SparseColumns, dict[str, NDArray[np.float32]]]:
        file = StoredFile(self._config_path, member(self._config_path, self._factors(), "z", dict))
        file.check_length()
        file.check(read_bytes(file.path))
        return _read_columns(file.path, self.neuron_count, self.feature_count)

    @property
    def Z(self) -> SparseColumns:
        """The features as columns `[d, k]`, sparse as on disk, each of unit length, in the neurons' own units."""
        return self._columns[0]

    @property
    def centre(self) -> NDArray[np.float32] | None:
        """The row that a centred fit adds to Y Zᵀ, `[d]`."""
        return self._columns[1].get("centre")

    @property
    def neuron_weights(self) -> NDArray[np.float32] | None:
        """What each neuron's values were multiplied by in the objective of a fit that scales neurons, `[d]`."""
        return self._columns[1].get("neuron_weights")

    def verify(self) -> None:
        """Reads Y once and compares its checksum (Z's is compared whenever it is read); raises `MlpeekError` where it differs."""
        if self.has_factors:
            StoredFile(self._config_path, member(self._config_path, self._factors(), "y", dict)).check(self.Y.T)
            self._columns

    @property
    def notes(self) -> dict[int, Note]:
        """What a person noted, by feature; see `Note`."""
        return self._study.notes(self.name)

    @property
    def names(self) -> dict[int, str]:
        """What a person named features, by feature."""
        return {feature: note.name for feature, note in self.notes.items() if note.name is not None}

    @property
    def descriptions(self) -> dict[int, dict[str, Any]]:
        """What a judge said of features, by feature: objects of `input`, `output`, `judge` and scores."""
        return self._study.descriptions(self.name)

    def direction(self, feature: int) -> Direction:
        """Column `feature` of Z as a direction at the fit's hook."""
        self._check(feature)
        name = self.names.get(feature)
        return Direction(self.Z.column(feature), self.hook, self.name, feature, name, lambda: self._push(feature))

    def directions(self) -> Iterator[Direction]:
        """Every feature as a direction, in the order of the features."""
        names = self.names
        for j in range(self.feature_count):
            push = lambda j=j: self._push(j)  # noqa: E731
            yield Direction(self.Z.column(j), self.hook, self.name, j, names.get(j), push)

    def coefficients(self, feature: int) -> NDArray[np.float32]:
        """The coefficients of one feature at every token `[n]`, a view of Y."""
        self._check(feature)
        return self.Y[:, feature]

    def _check(self, feature: int) -> None:
        self._factors()
        if not 0 <= feature < self.feature_count:
            raise MlpeekError(f"fit '{self.name}' has no feature {feature}: it has 0 to {self.feature_count - 1}")

    def _push(self, feature: int) -> NDArray[np.float32]:
        return self._study._push(self.hook, self.name, np.ascontiguousarray(self.Z.dense().T), feature)

    def features(self, frame: bool | None = None) -> Any:
        """A row a feature from the study's files alone: `feature`, `name`, `note`, `tags`, `rating`, `share` of ΣY, `density` (share
        of tokens above 5 % of its own maximum), `max_coefficient`, `neuron_count`.

        A pandas data frame where pandas is there, else a list of dicts; `frame` asks for one of the two. `study.features()` asks the
        program for more: contexts' tokens, purity, promoted tokens.
        """
        Y, notes = self.Y, self.notes
        sums = [float(Y[:, j].sum(dtype=np.float64)) for j in range(self.feature_count)]
        total = math.fsum(sums)
        rows = []
        for j, neurons in enumerate(self.Z.counts().tolist()):
            values, note = Y[:, j], notes.get(j, Note())
            peak = values.max(initial=np.float32(0))
            rows.append({
                "feature": j, "name": note.name, "note": note.text, "tags": list(note.tags), "rating": note.rating,
                "share": sums[j] / total if total > 0 else 0.0,
                "density": float(np.count_nonzero(values > peak * _FIRES)) / max(1, len(values)),
                "max_coefficient": float(peak), "neuron_count": neurons,
            })
        return table(rows, frame)


def _read_columns(path: Path, d: int, k: int) -> tuple[SparseColumns, dict[str, NDArray[np.float32]]]:
    tensors, metadata = read_safetensors(path)

    def foreign(what: str) -> MlpeekError:
        return about_file(path, f"not the features of a fit ({what}); fit again")

    def tensor(name: str, dtype: str) -> NDArray[Any]:
        found = tensors.get(name)
        if found is None or found.dtype != np.dtype(dtype) or found.ndim != 1:
            raise foreign(name)
        return found

    offsets, indices, values = tensor("offsets", "<u8"), tensor("indices", "<u4"), tensor("values", "<f4")
    if metadata.get("rows") != str(d) or len(offsets) != k + 1:
        raise foreign("another shape")
    steps_up = bool(np.all(offsets[1:] >= offsets[:-1]))
    if offsets[0] != 0 or not steps_up or not int(offsets[-1]) == len(indices) == len(values):
        raise foreign("offsets")
    # Indices ascend within a column: only where a column begins may one be no larger than the one before.
    falls = np.flatnonzero(indices[1:] <= indices[:-1]) + 1
    if (len(indices) and int(indices.max()) >= d) or not np.isin(falls, offsets).all() or not np.isfinite(values).all():
        raise foreign("indices or values")
    by_neuron: dict[str, NDArray[np.float32]] = {}
    for name in ("centre", "neuron_weights"):
        if name in tensors:
            by_neuron[name] = tensor(name, "<f4")
            if len(by_neuron[name]) != d or not np.isfinite(by_neuron[name]).all():
                raise foreign(name)
    return SparseColumns((d, k), offsets, indices, values), by_neuron
