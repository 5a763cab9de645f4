"""C from a file of the `deeploy` target, written by Deeploy's generic platform.

Runs in an environment of its own, where Deeploy is installed (`pip install deeploy-pulp`); it needs no ana_fx.

    python examples/deeploy_to_c.py network.onnx folder

The folder gets Network.h and Network.c, with `InitNetwork` and `RunNetwork`. Types are not guessed from sample values:
the file's metadata say them, and unsigned levels are bytes with an offset of 128.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from Deeploy.AbstractDataTypes import PointerClass
from Deeploy.CommonExtensions.DataTypes import int8_t
from Deeploy.DeeployTypes import _NoVerbosity
from Deeploy.Targets.Generic.Deployer import GenericDeployer
from Deeploy.Targets.Generic.Platform import GenericOptimizer, GenericPlatform

HEADER = """#pragma once
#include <stdint.h>
#include <stdlib.h>
{includes}
void InitNetwork(uint32_t core, uint32_t cores);
void RunNetwork(uint32_t core, uint32_t cores);
{borders}
"""
SOURCE = """#include "Network.h"
{buffers}
{globals}
void RunNetwork(uint32_t core, uint32_t cores) {{
{inference}
{function}
}}

void InitNetwork(uint32_t core, uint32_t cores) {{
{engine}
{allocation}
}}
"""


def main(path: Path, folder: Path) -> None:
    """Write Network.h and Network.c into a folder."""
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    types = {f"input_{index}": metadata[f"{value.name}.type"] for index, value in enumerate(model.graph.input)}
    deployer = GenericDeployer(
        gs.import_onnx(model),
        GenericPlatform(),
        dict.fromkeys(types, PointerClass(int8_t)),
        GenericOptimizer,
        lambda graph: graph.nodes,
        name="DeeployNetwork",
        default_channels_first=True,
        deeployStateDir=str(folder / "states"),
        inputOffsets={name: 128 if kind.startswith("u") else 0 for name, kind in types.items()},
    )
    deployer.prepare(_NoVerbosity)
    header = HEADER.format(
        includes=deployer.generateIncludeString(), borders=deployer.generateIOBufferInitializationCode()
    )
    source = SOURCE.format(
        buffers=deployer.generateBufferInitializationCode(),
        globals=deployer.generateGlobalDefinitionCode(),
        inference=deployer.generateInferenceInitializationCode(),
        function=deployer.generateFunction(_NoVerbosity),
        engine=deployer.generateEngineInitializationCode(),
        allocation=deployer.generateBufferAllocationCode(),
    )
    (folder / "Network.h").write_text(header)
    (folder / "Network.c").write_text(source)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
