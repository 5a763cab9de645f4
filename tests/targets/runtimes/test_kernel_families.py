"""Which kernels a processor has."""

import pytest

from ana_fx.target_registry import target_called
from ana_fx.targets.runtimes.kernel_families import KernelFamily, proven_families, this_family


@pytest.mark.parametrize(
    ("machine", "flags", "family"),
    [
        ("x86_64", {"sse4_1", "avx2", "avx512f", "avx512_vnni"}, KernelFamily.VNNI),
        ("AMD64", {"avx2", "avx_vnni"}, KernelFamily.VNNI),
        ("x86_64", {"avx2", "avx512f"}, KernelFamily.PAIRS),
        ("x86_64", {"avx2"}, KernelFamily.PAIRS),
        ("x86_64", {"sse4_1"}, KernelFamily.SSE),
        ("aarch64", set(), KernelFamily.ARM),
        ("arm64", set(), KernelFamily.ARM),
        ("x86_64", set(), None),
        ("riscv64", {"avx2"}, None),
    ],
)
def test_a_family_is_told_by_architecture_and_features(machine, flags, family):
    assert this_family(machine, frozenset(flags)) is family


def test_files_for_other_tools_are_proven_for_no_kernels_of_onnxruntime():
    assert proven_families(target_called("deeploy"), ()) == ()
    assert proven_families(target_called("qdq"), ()) == tuple(KernelFamily)
    assert KernelFamily.PAIRS not in proven_families(target_called("qdq"), ("head",))
