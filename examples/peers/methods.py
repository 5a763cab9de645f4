"""The methods by name; a tool is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import ana_fx
from examples.peers.method import Method
from examples.peers.ours import AnaFx
from examples.peers.plain import Plain

__all__ = ["METHODS"]


def _brevitas() -> Method:
    from examples.peers.brevitas_qat import Brevitas

    return Brevitas()


def _torch_ao() -> Method:
    from examples.peers.torch_ao import TorchAo

    return TorchAo()


METHODS: Mapping[str, Callable[[], Method]] = MappingProxyType(
    {
        "ana_fx": lambda: AnaFx("ana_fx", "lsq"),
        "ana_fx-taught": lambda: AnaFx("ana_fx-taught", "lsq", is_taught=True),
        "ana_fx-annealed-fixed": lambda: AnaFx("ana_fx-annealed-fixed", ana_fx.Schedule()),
        "ana_fx-annealed": lambda: AnaFx("ana_fx-annealed", ana_fx.Schedule(learn_scales=True)),
        "ana_fx-annealed-late": lambda: AnaFx("ana_fx-annealed-late", ana_fx.Schedule(learn_scales=True, stop=1.0)),
        "brevitas": _brevitas,
        "torch.ao": _torch_ao,
        "lsq": lambda: Plain("lsq", learns_steps=True),
        "ste": lambda: Plain("ste", learns_steps=False),
    }
)
