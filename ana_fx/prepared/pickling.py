"""Pickling a model is refused when it is saved; torch.fx would fail when it is loaded, or lose what ana_fx knows."""

from __future__ import annotations

from typing import Any, NoReturn

from torch.fx import GraphModule

__all__ = ["refuse_pickling"]


def refuse_pickling(gm: GraphModule) -> None:
    """Have `torch.save(gm)` and `pickle.dumps(gm)` say what to do instead; copies of the model refuse likewise."""
    gm.meta["pickling"] = _Refusal()


class _Refusal:
    """Part of a model, so that whoever pickles that one hears of it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Refusal:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a model of ana_fx cannot be pickled, since its graph would come back without what ana_fx knows of it; "
            "save the state of a prepared model, torch.save(qat.state_dict(), path), and load it into another one from "
            "prepare(); save a converted program by ana_fx.save(program, path)"
        )
