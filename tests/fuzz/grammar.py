"""The grammar: from a seed to a model and the settings that it is prepared with."""

from __future__ import annotations

import random

from tests.fuzz.builder import Builder, Production, UnfitError
from tests.fuzz.case import BATCH, Case
from tests.fuzz.combinations import COMBINATIONS
from tests.fuzz.layers import LAYERS
from tests.fuzz.movement import MOVEMENT
from tests.fuzz.pointwise import POINTWISE
from tests.fuzz.settings import draw_settings

__all__ = ["PRODUCTIONS", "draw_case"]

PRODUCTIONS: dict[Production, float] = {**LAYERS, **POINTWISE, **MOVEMENT, **COMBINATIONS}
_LONGEST = 8  # statements
_TRIES = 60


def draw_case(seed: int) -> Case:
    """The case of a seed: always the same."""
    rng = random.Random(seed)
    b = Builder(rng)
    inputs = {f"x{i}": (_shape(rng), rng.choice(("unit", "signed", "signed", "wide"))) for i in range(_num_inputs(rng))}
    for shape, kind in inputs.values():
        b.add_input(shape, kind)
    wanted = rng.randint(1, _LONGEST)
    productions, weights = list(PRODUCTIONS), list(PRODUCTIONS.values())
    for _ in range(_TRIES):
        if b.num_statements == wanted:
            break
        try:
            rng.choices(productions, weights)[0](b)
        except UnfitError:
            continue
    case = Case(seed, inputs, tuple(b.statements), _outputs(b), draw_settings(rng))
    return case if b.chance(0.1) else case.without_dead_code()


def _num_inputs(rng: random.Random) -> int:
    return rng.choice((1, 1, 1, 1, 2, 3))


def _shape(rng: random.Random) -> tuple[int, ...]:
    """Of images, sequences, volumes and rows, tiny ones too."""
    rank = rng.choice((1, 1, 2, 2, 2, 2, 2, 3)) if rng.random() < 0.97 else -1
    if rank < 0:
        return (BATCH,)
    if rank == 0:
        return (BATCH, rng.choice((1, 3, 8)))
    sizes = tuple(rng.choice((1, 2, 3, 4, 5, 7) if rank < 3 else (1, 2, 3)) for _ in range(rank))
    shape = (BATCH, rng.choice((1, 2, 3, 4, 6)), *sizes)
    return (*shape[:1], shape[1] * 2) if rank == 1 and rng.random() < 0.3 else shape


def _outputs(b: Builder) -> str:
    """What no statement reads, sometimes more, alone or in a container."""
    read = {name for each in b.statements for name in each.reads}
    made = [name for name in b.tensors if name.startswith("t")]
    found = [name for name in made if name not in read or b.chance(0.05)] or list(b.tensors)[:1]
    if b.chance(0.3) and len(found) > 1:
        found = found[-1:]  # the others are dead code
    if b.chance(0.02):
        found = [*found, "x0"]
    if len(found) == 1 and b.chance(0.9):
        return found[0]
    pairs = ", ".join(f"'{name}': {name}" for name in found)
    return b.of(f"({', '.join(found)},)", f"[{', '.join(found)}]", f"{{{pairs}}}", f"({', '.join(found)},)")
