"""Where in a model activations are read: the names that TransformerLens gives these places."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .errors import MlpeekError, about_file

#: The sites of a layer, in the order of its computation.
SITES = ("mlp.hook_post", "hook_mlp_out", "hook_resid_post")


class Hook(NamedTuple):
    """A place in a model. `str(hook)` is its name in TransformerLens: `blocks.15.mlp.hook_post`."""

    #: The layer, from 0.
    layer: int
    #: `mlp.hook_post` (the input of the down projection, d_mlp wide), `hook_mlp_out` (what the MLP adds) or `hook_resid_post` (the
    #: residual stream after the layer), both d_model wide.
    site: str

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{self.site}"


def hook_of(path: Path, value: Any) -> Hook:
    """A hook as a study's JSON files hold it."""
    layer, site = (value.get("layer"), value.get("site")) if isinstance(value, dict) else (None, None)
    if type(layer) is not int or layer < 0 or site not in SITES:
        raise about_file(path, "has a hook that mlpeek does not know")
    return Hook(layer, site)


def choose(hooks: list[Hook], layer: int | None, hook: Hook | str | None) -> Hook:
    """The one hook among `hooks` that is meant; `hook` is a site, or a hook or its whole name.

    Raises `MlpeekError`, which lists the hooks, where none or several are meant.
    """
    there = ", ".join(map(str, hooks))
    site = hook.site if isinstance(hook, Hook) else hook
    if isinstance(hook, Hook):
        if layer not in (None, hook.layer):
            raise MlpeekError(f"layer {layer} and hook {hook} contradict each other")
        layer = hook.layer
    found = [h for h in hooks if layer in (None, h.layer) and (site in (None, h.site) or site == str(h))]
    if len(found) == 1:
        return found[0]
    asked = " ".join(str(word) for word in (f"layer {layer}" if layer is not None else None, site) if word is not None)
    if found:
        raise MlpeekError(f"{asked or 'no layer and no hook'} leaves several hooks: say layer= or hook=; the study has {there}")
    raise MlpeekError(f"the study has no hook at {asked}: it has {there}")
