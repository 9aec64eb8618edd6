"""Models: one file a paper, the paper's table as rows; ``build`` and ``describe`` by name."""

import inspect
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numnet.errors import NumnetError
from numnet.models import (
    googlenet,
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilenet_v4,
    plain_3x3,
    searched,
    vgg16,
)
from numnet.models.common import Settings, check
from numnet.models.names import hint
from numnet.net import Net, dtype_of

MODELS = {  # name: what makes its layers, and the keywords that this name fixes
    "mobilenet_v1": (mobilenet_v1.layers, {}),
    "mobilenet_v2": (mobilenet_v2.layers, {}),
    "mobilenet_v3_large": (mobilenet_v3.layers, {"size": "large"}),
    "mobilenet_v3_small": (mobilenet_v3.layers, {"size": "small"}),
    "mobilenet_v3_large_minimalistic": (mobilenet_v3.minimalistic, {"size": "large"}),
    "mobilenet_v3_small_minimalistic": (mobilenet_v3.minimalistic, {"size": "small"}),
    "mobilenet_v4_small": (mobilenet_v4.layers, {"size": "small"}),
    "mobilenet_v4_medium": (mobilenet_v4.layers, {"size": "medium"}),
    "mobilenet_v4_large": (mobilenet_v4.layers, {"size": "large"}),
    "mnasnet_a1": (mnasnet.layers, {"table": mnasnet.A1}),
    "mnasnet_b1": (mnasnet.layers, {"table": mnasnet.B1}),
    "mnasnet_keras": (mnasnet.article, {}),
    "plain_3x3": (plain_3x3.layers, {}),
    "vgg16": (vgg16.layers, {}),
    "googlenet": (googlenet.layers, {}),
}

# Options that a model refuses
NO_CHOICE = {"vgg16": vgg16.FIXED, "googlenet": googlenet.FIXED, "plain_3x3": plain_3x3.FIXED}

# Where parameters start, unless ``initialiser`` says otherwise: the scheme of the framework whose shapes a variant has.
INITIALISERS = {"keras": "glorot_uniform", "torch": "he_fan_out", "paddle": "he_fan_in"}
INITIALISERS_OF_MODELS = {
    ("mobilenet_v1", "torch"): "he_fan_out_group",  # timm's
    ("mobilenet_v1", "paddle"): "he_fan_in_all",
    ("mnasnet_a1", "torch"): "he_fan_out_group",
    ("mnasnet_b1", "torch"): "he_fan_out_uniform_dense",
    ("googlenet", "torch"): "normal_001",
    **{(f"mobilenet_v4_{size}", "torch"): "he_fan_out_group" for size in mobilenet_v4.ROWS},
}


def models() -> list[str]:
    """The names that ``build`` knows."""
    return list(MODELS)


def build(model: str, *, dtype: DTypeLike = "float32", seed: int = 0, **options: Any) -> Net:
    """The net ``model`` with parameters, initialised from ``seed``. Options and their defaults: see ``Settings``.

    model: a name of ``models()``, or a net in one line, "search:32:…" (see ``numnet.models.searched``).

    width, resolution (a side, or [height, width]), classes (0: a net that ends where its classifier would begin),
    channels, padding, strides, variant, dropout, bn_eps, bn_momentum, activation, kernel, head, initialiser, and what the
    model's own page adds. Raises NumnetError that names an unknown model or option and the
    nearest known one.
    """
    return _make(model, options, dtype, seed, allocate=True)


def describe(model: str, *, dtype: DTypeLike = "float32", seed: int = 0, **options: Any) -> Net:
    """The same net without arrays: its ``cost()`` and its summary."""
    return _make(model, options, dtype, seed, allocate=False)


def _make(model, options, dtype, seed, allocate):
    if searched.is_written(model):
        net = searched.parse(model)
        model, make, fixed = str(net), searched.layers, {"text": model}
        options = {"resolution": net.side, **options}
    elif not isinstance(model, str) or model not in MODELS:
        raise NumnetError(f"model: expected one of {', '.join(MODELS)}, got {model!r}{hint(model, MODELS)}")
    else:
        make, fixed = MODELS[model]
    shared = set(Settings.__dataclass_fields__)
    own = {name for name, p in inspect.signature(make).parameters.items() if p.kind == p.KEYWORD_ONLY} - set(
        fixed
    )
    for name in options:
        if name not in shared | own:
            known = ", ".join(sorted(shared | own))
            raise NumnetError(f"{model}: no option {name!r}{hint(name, shared | own)}; it has {known}")
    # NumPy's numbers as Python's: the configuration is saved as JSON.
    options = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()
    }
    if isinstance(options.get("resolution"), tuple):
        options["resolution"] = list(options["resolution"])
    seed = seed.item() if isinstance(seed, np.generic) else seed
    for name, value in {**options, "seed": seed}.items():
        check(name, value)
    dtype = dtype_of(dtype).name
    settings = Settings(**{name: value for name, value in options.items() if name in shared})
    more = {name: value for name, value in options.items() if name in own}
    config = {"model": model, **options, "dtype": dtype, "seed": seed}
    try:
        layers = make(settings, **fixed, **more)
        return Net(
            layers,
            settings.input_shape,
            dtype=dtype,
            seed=seed,
            initialiser=settings.initialiser
            or INITIALISERS_OF_MODELS.get((model, settings.variant), INITIALISERS[settings.variant]),
            config=config,
            allocate=allocate,
        )
    except NumnetError:
        raise
    except ValueError as error:
        raise NumnetError(f"{model}: {error}") from error
