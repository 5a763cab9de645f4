"""Write the table of docs/support_matrix.md from the targets: `python docs/code/support_matrix.py`."""

from pathlib import Path

import ana_fx
from ana_fx.target import OPERATORS

PAGE = Path(__file__).resolve().parents[1] / "support_matrix.md"
BEGIN, END = "<!-- begin: written by docs/code/support_matrix.py -->", "<!-- end -->"


def matrix() -> str:
    """A row for each kind of layer map and each limit, a column for each target of this package."""
    own = [target for target in ana_fx.targets() if target.emitter.startswith("ana_fx.")]
    rows = [["", *(f"`{target.name}`" for target in own)], ["---"] * (len(own) + 1)]
    rows += [
        [f"**{kind}**", *("yes" if kind in target.operators else "–" for target in own)] for kind in sorted(OPERATORS)
    ]
    facts = {
        "bits of weights": lambda target: "{} to {}".format(*target.weight_bits),
        "bits of features": lambda target: "{} to {}".format(*target.activation_bits),
        "codebooks": lambda target: "yes" if target.holds_codebooks else "–",
        "axes of convolutions": lambda target: ", ".join(map(str, sorted(target.spatial_axes))),
        "float layers": lambda target: "yes" if target.holds_floats else "–",
        "bits of accumulators": lambda target: str(target.accumulator_bits),
        "requantizer": lambda target: target.requantizer.value,
        "one shift a layer": lambda target: "yes" if target.common_shift else "–",
        "sums need one scale": lambda target: "yes" if target.aligned_sums else "–",
        "borders": lambda target: ", ".join(target.borders),
        "`verify` runs it in": lambda target: ", ".join(target.runtimes),
    }
    rows += [[name, *(fact(target) for target in own)] for name, fact in facts.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Put the table between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{matrix()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
