"""What a model says of itself in `config`, as those of Hugging Face do; the prepared model and the program keep it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY as _KEPT

__all__ = ["keep_config", "labels_of"]

_NAME = "config"


def keep_config(gm: GraphModule, model: nn.Module) -> None:
    """Give a graph, and what is copied of it, the `config` of the model that it was traced from, if it has one."""
    config = getattr(model, _NAME, None)
    if config is None or isinstance(config, (nn.Module, Tensor)) or callable(config) or hasattr(gm, _NAME):
        return
    gm.meta.setdefault(_KEPT, {})[_NAME] = copy.deepcopy(config)
    setattr(gm, _NAME, gm.meta[_KEPT][_NAME])


def labels_of(gm: GraphModule) -> tuple[str, ...]:
    """What the channels of its output stand for, of `config.id2label`; none if it does not say 0, 1, 2 and so on."""
    labels: Any = getattr(getattr(gm, _NAME, None), "id2label", None)
    if not isinstance(labels, Mapping):
        return ()
    named = {int(key): str(label) for key, label in labels.items() if str(key).isdigit()}
    return tuple(named[index] for index in range(len(named))) if set(named) == set(range(len(labels))) else ()
