"""A direction in the space of a hook: a column of Z, or a decoder row of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MlpeekError
from .hooks import Hook


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector `[d]` in the space of `hook`, to steer or to project with.

    numpy takes it as an array (`activations[:] @ direction`), `to_torch()` gives a tensor. mlpeek steers by adding α times the
    unit vector to the activation at `hook`: `x + alpha * direction.unit`.
    """

    #: The values `[d]`, float32; a feature's have unit length.
    vector: NDArray[np.float32] = field(repr=False)
    #: Where in the model; `str(direction.hook)` is TransformerLens's name.
    hook: Hook
    #: The set that it is of: a fit's name, or `sae:NAME`.
    set: str
    #: Its number in the set.
    feature: int
    #: What a person named it.
    name: str | None = None
    _push: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)

    @property
    def layer(self) -> int:
        """The layer of its hook, from 0."""
        return self.hook.layer

    @property
    def site(self) -> str:
        """The site of its hook within the layer: `mlp.hook_post`, `hook_mlp_out` or `hook_resid_post`."""
        return self.hook.site

    @property
    def unit(self) -> NDArray[np.float32]:
        """The vector at unit length `[d]`."""
        norm = float(np.linalg.norm(self.vector.astype(np.float64)))
        if norm == 0.0:
            raise MlpeekError(f"direction {self.feature} of {self.set} is zero: it has no unit vector")
        return (self.vector / norm).astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vector, dtype=dtype, copy=True) if copy else np.asarray(self.vector, dtype=dtype)

    def __len__(self) -> int:
        return len(self.vector)

    def __matmul__(self, other: Any) -> Any:
        return self.vector @ np.asarray(other)

    def __rmatmul__(self, other: Any) -> Any:
        return np.asarray(other) @ self.vector

    def to_torch(self, **how: Any) -> Any:
        """A torch tensor `[d]`, a copy; `how` goes to `Tensor.to`: `device=`, `dtype=`."""
        import torch

        return torch.from_numpy(np.array(self.vector)).to(**how)

    def residual(self) -> NDArray[np.float32]:
        """What α = 1 of it adds to the residual stream after its layer, `[d_model]`.

        At `hook_mlp_out` and `hook_resid_post` that is the unit vector itself. At `mlp.hook_post` it goes through the model's output
        projection, which a study does not hold: it is there once the direction's effect has been measured (`study.effects()`), and
        `MlpeekError` says so where it has not.
        """
        if self.site != "mlp.hook_post":
            return self.unit
        if self._push is None:
            raise MlpeekError(f"what {self.set} adds to the residual stream is not known without a study")
        return self._push()
