"""Sparse autoencoders of a study: `saes/<name>/`, weights as SAELens writes them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checksum import hex_digest
from .directions import Direction
from .disk import is_name, member, read_bytes, read_json, read_safetensors
from .errors import MlpeekError, about_file
from .hooks import Hook, hook_of

if TYPE_CHECKING:
    from .study import Study

_WEIGHTS = "sae_weights.safetensors"


class Sae:
    """A sparse autoencoder x̂ = f(x) W_dec + b_dec of one hook. Opening one reads its `about.json` alone."""

    def __init__(self, study: Study, name: str) -> None:
        #: Its name in the study.
        self.name = name
        self._study = study
        self._about_path = path = study.path / "saes" / name / "about.json"
        #: All that the study says of it.
        self.about: dict[str, Any] = read_json(path)
        #: Grows with every save in the study.
        self.order: int = member(path, self.about, "order", int)
        #: The hook that it reads.
        self.hook: Hook = hook_of(path, self.about.get("hook"))
        #: `standard`, `jumprelu`, `topk` or `gated`, SAELens's names.
        self.architecture: str = member(path, self.about, "architecture", str)
        #: The number of latents.
        self.latent_count: int = member(path, self.about, "latents", int)
        #: Where it came from.
        self.source: str = member(path, self.about, "source", str)
        #: FVU, L0 and the like on the study's own rows; `None` before there are weights.
        self.figures: dict[str, Any] | None = self.about.get("figures")

    def __repr__(self) -> str:
        return f"<Sae {self.name}: {self.architecture}, {self.latent_count} latents at {self.hook}>"

    @property
    def layer(self) -> int:
        """The layer of its hook, from 0."""
        return self.hook.layer

    @property
    def has_weights(self) -> bool:
        """Whether there are weights; a first training that goes on has none."""
        return self.about.get("weights") is not None

    @property
    def path(self) -> Path:
        """The directory with its weights, which `sae_lens.SAE.load_from_disk` opens."""
        weights = self.about.get("weights")
        if weights is None:
            raise MlpeekError(f"SAE '{self.name}' has no weights yet: go on with mlpeek sae train --resume")
        if not (isinstance(weights, list) and len(weights) == 2 and all(isinstance(word, str) for word in weights)):
            raise about_file(self._about_path, "has no \"weights\" as mlpeek writes it")
        # The name comes from a file: it must not lead out of the folder.
        if not is_name(weights[0]):
            raise about_file(self._about_path, f"names {weights[0][:80]!r}, which is no folder of mlpeek's")
        return self._about_path.parent / str(weights[0])

    @cached_property
    def config(self) -> dict[str, Any]:
        """`cfg.json` as SAELens reads it."""
        return read_json(self.path / "cfg.json")

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The tensors, mapped: `W_enc` `[d, latents]`, `b_enc`, `W_dec` `[latents, d]`, `b_dec`, and those of the architecture."""
        path = self.path / _WEIGHTS
        if hex_digest(read_bytes(path)) != self.about["weights"][1]:
            raise about_file(path, "damaged (checksum); restore it from a copy, or load or train it again")
        return read_safetensors(path)[0]

    def direction(self, latent: int) -> Direction:
        """The decoder's row of a latent as a direction at the hook."""
        if not 0 <= latent < self.latent_count:
            raise MlpeekError(f"SAE '{self.name}' has no latent {latent}: it has 0 to {self.latent_count - 1}")
        decoder = self.weights.get("W_dec")
        if decoder is None or decoder.ndim != 2 or len(decoder) != self.latent_count:
            raise about_file(self.path / _WEIGHTS, f"has no W_dec of {self.latent_count} rows")
        of = f"sae:{self.name}"
        push = lambda: self._study._push(self.hook, of, decoder, latent)  # noqa: E731
        return Direction(np.array(decoder[latent], np.float32), self.hook, of, latent, None, push)
