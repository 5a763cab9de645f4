"""Every torchvision network of images, and some for videos and segmentation, becomes a graph for any batch size."""

import pytest
import torch
from torch import nn

from ana_fx.passes.frontend.output_containers import plain
from ana_fx.passes.frontend.trace_model import trace

torchvision = pytest.importorskip("torchvision")
from torchvision.models import detection, segmentation, video  # noqa: E402  # after the skip

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
TOO_LARGE_TO_RUN = ("regnet_y_128gf", "vit_h_14")  # they take seconds a batch: traced, not compared
OPTIONS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
SIZES = {"maxvit_t": 224, "inception_v3": 96}
SCRATCH = {"weights": None, "weights_backbone": None}


def without_zeros(model: nn.Module) -> nn.Module:
    """The model with other numbers than zeros in its last layer, so that there is something to compare."""
    for parameter in model.parameters():
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def assert_traced(model: nn.Module, *shape: int) -> None:
    """The same within what another order of sums makes of float32: 1e-4 of the largest output, as in `prepare`."""
    gm = trace(model, torch.rand(2, *shape)).eval()
    for batch_size in (1, 3):
        x = torch.rand(batch_size, *shape)
        found = torch.utils._pytree.tree_leaves(gm(x))
        wanted = torch.utils._pytree.tree_leaves(plain(model(x)))
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_becomes_the_graph_of_what_it_computes(name):
    size = SIZES.get(name, 64)
    options = OPTIONS.get(name, {})
    if name.startswith("vit"):
        size = options["image_size"] = 56 if name.endswith("14") else 64
    if name in TOO_LARGE_TO_RUN:
        model = torchvision.models.get_model(name, weights=None, **options)
        assert trace(model, torch.rand(2, 3, size, size)).graph.find_nodes(op="output")
        return
    assert_traced(without_zeros(torchvision.models.get_model(name, weights=None, **options)), 3, size, size)


def test_a_network_with_shifted_windows_and_one_with_tokens_become_graphs():
    assert_traced(without_zeros(torchvision.models.swin_t(weights=None)), 3, 64, 64)
    assert_traced(without_zeros(torchvision.models.vit_b_32(weights=None, image_size=64)), 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_segmentation_networks_become_graphs_with_a_dict_of_outputs(name):
    assert_traced(getattr(segmentation, name)(**SCRATCH).eval(), 3, 64, 64)


def test_a_feature_pyramid_becomes_a_graph_with_a_dict_of_outputs():
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    assert_traced(backbone.eval(), 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t"])
def test_video_networks_become_graphs(name):
    assert_traced(without_zeros(getattr(video, name)(weights=None)), 3, 4, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_networks_that_write_to_slices_become_graphs(name):
    model = video.MViT(
        (32, 32),
        4,
        [
            video.mvit.MSBlockConfig(2, 16, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
            video.mvit.MSBlockConfig(4, 32, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
        ],
        residual_pool=name == "mvit_v2_s",
        residual_with_cls_embed=False,
        rel_pos_embed=name == "mvit_v2_s",
        proj_after_attn=name == "mvit_v2_s",
        patch_embed_kernel=(3, 7, 7),
        num_classes=10,
    )
    assert_traced(without_zeros(model), 3, 4, 32, 32)
