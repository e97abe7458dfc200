"""Read mlpeek's studies from Python, and have its program steer, trace and list features.

    import mlpeek

    s = mlpeek.open("study")
    A = s.activations()                          # [n, d], mapped
    fit = s.fit("k100")                          # A ≈ Y Zᵀ
    fit.features()                               # a data frame where pandas is there
    d = fit.direction(14)                        # [d], with .hook, .layer, .to_torch()
    s.steer(14, "I think that", kl=0.25)["steered"]

Arrays are mapped, files are never changed, and everything that needs the model is done by the `mlpeek` program that comes with the
package. `mlpeek guide python` is the page on it, `mlpeek guide files` has the files of a study to the byte.
"""

from __future__ import annotations

import os as _os

from .activations import Activations
from .binary import find_binary, run
from .directions import Direction
from .disk import bf16_to_f32
from .errors import MlpeekError
from .evaluations import Evaluation
from .fits import Fit, SparseColumns
from .hooks import Hook
from .notes import Note
from .saes import Sae
from .study import Study
from .tokens import Sample, Token, Tokens

__all__ = [
    "Activations", "Direction", "Evaluation", "Fit", "Hook", "MlpeekError", "Note", "Sae", "Sample", "SparseColumns", "Study", "Token",
    "Tokens", "bf16_to_f32", "find_binary", "open", "run",
]


def open(path: str | _os.PathLike[str]) -> Study:
    """Opens the study in a directory. Raises `MlpeekError` where there is none, or one of another layout."""
    return Study(path)
