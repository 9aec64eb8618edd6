"""PyTorch reimplementations that many people train: their names and conventions, against modules of our own."""

import json

import numpy as np
import pytest
from test_weights import EXACT, one_line

from numnet import weights
from numnet.errors import NumnetError

TABLE = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
WIDTH = 0.25


def eight(c):
    """The nearest multiple of 8, at least 8, not less than nine tenths."""
    rounded = max(8, int(c + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * c else rounded


@pytest.fixture
def nn(torch):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return torch.nn


def unit(nn, c, f, k=3, s=1, groups=1, act=None):
    """Convolution, batch norm and activation as a list."""
    layers = [nn.Conv2d(c, f, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(f)]
    return layers if act is None else [*layers, act]


def flat_v2(nn, style):
    """MobileNetV2 with one Sequential a block: tonylins's first and later version, and d-li14's."""
    first = style == "tonylins"
    width = (lambda c: int(c * WIDTH)) if first else (lambda c: eight(c * WIDTH))
    act = nn.ReLU6()

    class Block(nn.Module):
        def __init__(self, c, f, s, t):
            super().__init__()
            self.skip = s == 1 and c == f
            wide = c * t
            expand = unit(nn, c, wide, 1, act=act) if t > 1 or first else []
            self.conv = nn.Sequential(*expand, *unit(nn, wide, wide, 3, s, wide, act), *unit(nn, wide, f, 1))

        def forward(self, x):
            return x + self.conv(x) if self.skip else self.conv(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            c = width(32)
            layers = [nn.Sequential(*unit(nn, 3, c, 3, 2, act=act))]
            for t, f, n, s in TABLE:
                for i in range(n):
                    layers.append(Block(c, width(f), s if i == 0 else 1, t))
                    c = width(f)
            last = nn.Sequential(*unit(nn, c, 1280, 1, act=act))
            if style == "d-li14":
                self.features, self.conv = nn.Sequential(*layers), last
            else:
                self.features = nn.Sequential(*layers, last)
            dense = nn.Linear(1280, 7)
            self.classifier = nn.Sequential(nn.Dropout(), dense) if first else dense

        def forward(self, x):
            x = self.features(x)
            x = self.conv(x) if style == "d-li14" else x
            return self.classifier(x.mean((2, 3)))

    return Net()


def cifar_v1(nn):
    """kuangliu's MobileNet: ReLU, a stem of stride 1."""

    class Block(nn.Module):
        def __init__(self, c, f, s):
            super().__init__()
            self.conv1, self.bn1 = unit(nn, c, c, 3, s, c)
            self.conv2, self.bn2 = unit(nn, c, f, 1)

        def forward(self, x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = unit(nn, 3, 8)
            c, blocks = 8, []
            for f, s in [
                (16, 1),
                (32, 2),
                (32, 1),
                (64, 2),
                (64, 1),
                (128, 2),
                *[(128, 1)] * 5,
                (256, 2),
                (256, 1),
            ]:
                blocks.append(Block(c, f, s))
                c = f
            self.layers, self.linear = nn.Sequential(*blocks), nn.Linear(c, 10)

        def forward(self, x):
            x = self.layers(self.bn1(self.conv1(x)).relu())
            return self.linear(nn.functional.avg_pool2d(x, 2).flatten(1))

    return Net()


def translated(nn, version):
    """transformers' V1 and V2: TensorFlow's padding, written out, and ε 1e-3."""

    class Unit(nn.Module):
        def __init__(self, c, f, k=3, s=1, groups=1, act=True):
            super().__init__()
            self.convolution = nn.Conv2d(c, f, k, s, 0, groups=groups, bias=False)
            self.normalization, self.act = nn.BatchNorm2d(f, eps=1e-3), act

        def forward(self, x):
            (k, _), (s, _) = self.convolution.kernel_size, self.convolution.stride
            total = [max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[2:]]
            pads = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
            y = self.normalization(self.convolution(nn.functional.pad(x, pads)))
            return y.clamp(0, 6) if self.act else y

    class Block(nn.Module):
        def __init__(self, c, f, s):
            super().__init__()
            self.skip = s == 1 and c == f
            self.expand_1x1, self.conv_3x3 = Unit(c, 6 * c, 1), Unit(6 * c, 6 * c, 3, s, 6 * c)
            self.reduce_1x1 = Unit(6 * c, f, 1, act=False)

        def forward(self, x):
            y = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x)))
            return x + y if self.skip else y

    class Stem(nn.Module):
        def __init__(self, c, f):
            super().__init__()
            self.first_conv, self.conv_3x3 = Unit(3, c, 3, 2), Unit(c, c, 3, 1, c)
            self.reduce_1x1 = Unit(c, f, 1, act=False)

        def forward(self, x):
            return self.reduce_1x1(self.conv_3x3(self.first_conv(x)))

    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            if version == 1:
                self.conv_stem, c = Unit(3, 8, 3, 2), 8
                for f, s in [
                    (16, 1),
                    (32, 2),
                    (32, 1),
                    (64, 2),
                    (64, 1),
                    (128, 2),
                    *[(128, 1)] * 5,
                    (256, 2),
                    (256, 1),
                ]:
                    layers += [Unit(c, c, 3, s, c), Unit(c, f, 1)]
                    c = f
            else:
                c = eight(16 * WIDTH)
                self.conv_stem = Stem(eight(32 * WIDTH), c)
                for _, f, n, s in TABLE[1:]:
                    for i in range(n):
                        layers.append(Block(c, eight(f * WIDTH), s if i == 0 else 1))
                        c = eight(f * WIDTH)
                self.conv_1x1 = Unit(c, 1280, 1)
            self.layer = nn.ModuleList(layers)

        def forward(self, x):
            x = self.conv_stem(x)
            for layer in self.layer:
                x = layer(x)
            return x if version == 1 else self.conv_1x1(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, f"mobilenet_v{version}", Base())
            self.classifier = nn.Linear(256 if version == 1 else 1280, 7)

        def forward(self, x):
            return self.classifier(getattr(self, f"mobilenet_v{version}")(x).mean((2, 3)))

    return Net()


def randomised(torch, module):
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.6, 1.4), layer.bias.uniform_(-0.3, 0.3)
                layer.running_mean.uniform_(-0.2, 0.2), layer.running_var.uniform_(0.6, 1.5)
    return module.eval()


def equal(torch, module, net):
    x = np.random.default_rng(1).normal(size=(2, *net.input_shape)).astype(np.float32)
    with torch.no_grad():
        want = module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(net.forward(x) - want).max() <= EXACT * np.abs(want).max()


@pytest.mark.parametrize("style", ["tonylins", "tonylins, later", "d-li14"])
def test_v2_of_flat_blocks(style, nn, torch, tmp_path):
    module = randomised(torch, flat_v2(nn, style))
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in module.state_dict().items()}}, tmp_path / "v2.pth.tar"
    )
    net = weights.import_file(tmp_path / "v2.pth.tar", resolution=32)
    assert net.document["source"]["layout"] == style and net.config["padding"] == "symmetric"
    equal(torch, module, net)


def test_kuangliu_s_v1(nn, torch, tmp_path):
    module = randomised(torch, cifar_v1(nn))
    torch.save(
        {"net": {f"module.{n}": t for n, t in module.state_dict().items()}, "acc": 92.0, "epoch": 3},
        tmp_path / "ckpt.pth",
    )
    net = weights.import_file(tmp_path / "ckpt.pth")
    assert (
        net.config["activation"] == "relu" and net.input_shape == (32, 32, 3) and net.config["width"] == 0.25
    )
    assert net.scaling["std"] == [0.2023, 0.1994, 0.2010]
    equal(torch, module, net)


@pytest.mark.parametrize("version", [1, 2])
def test_transformers(version, nn, torch, tmp_path):
    """A folder of the hub's: its configuration says padding, ε, resolution and the labels."""
    from safetensors.torch import save_file

    module = randomised(torch, translated(nn, version))
    save_file(module.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": f"mobilenet_v{version}",
        "tf_padding": True,
        "layer_norm_eps": 0.001,
        "image_size": 32,
    }
    labels = {str(i): name for i, name in enumerate("abcdefg")}
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": labels, "hidden_act": "relu6"}))
    reader = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.5, 0.5, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(reader))
    net = weights.import_file(tmp_path)
    assert net.document["source"]["layout"] == "transformers" and net.class_names == list("abcdefg")
    assert net.config["padding"] == "same" and net.scaling == {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.5, 0.5, 0.25],
    }
    equal(torch, module, net)


@pytest.mark.parametrize(
    "names, words",
    [
        (["layers.0.conv3.weight", "layers.0.shortcut.0.weight"], "a convolution on the shortcut"),
        (
            ["features.4.conv.5.fc.0.weight", "classifier.0.weight"],
            "an activation between pooling and classifier",
        ),
    ],
)
def test_nets_that_numnet_does_not_build_are_named(names, words, tmp_path):
    from safetensors.numpy import save_file

    save_file({name: np.zeros((3, 3), np.float32) for name in names}, tmp_path / "net.safetensors")
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(tmp_path / "net.safetensors")
    one_line(excinfo, words, "numnet builds no such")
