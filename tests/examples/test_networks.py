"""The networks have the shapes that the paper gives."""

import pytest
import torch

from examples.networks import DSCNN, VGG8, ResNet20


def test_vgg8_has_the_widths_of_the_paper():
    net = VGG8()
    weights = [tuple(p.shape[:2]) for p in net.parameters() if p.ndim > 1]
    convolutions = [(128, 3), (256, 128), (256, 256), (512, 256), (512, 512)]
    assert weights == [*convolutions, (1024, 8192), (1024, 1024), (10, 1024)]


def test_vgg8_takes_images_of_32_pixels_at_any_width():
    assert VGG8(width_divisor=16, num_classes=7)(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("width_divisor", [0, 3])
def test_vgg8_refuses_what_does_not_divide_its_widths(width_divisor):
    with pytest.raises(ValueError, match="divisor of 128"):
        VGG8(width_divisor)


def test_dscnn_pads_cepstra_to_half_their_size():
    net, cepstra = DSCNN(), torch.rand(2, 1, 49, 10)
    assert net.features[:2](cepstra).shape == (2, 64, 25, 5)
    assert net(cepstra).shape == (2, 12)


def test_resnet20_has_20_layers_and_shortcuts_without_parameters():
    net = ResNet20()
    assert len([p for p in net.parameters() if p.ndim > 1]) == 20
    assert sum(p.numel() for p in net.parameters()) == 269_722
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
