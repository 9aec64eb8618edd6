"""Models: one file a paper, the paper's table as rows; ``build`` and ``describe`` by name."""

import difflib
import inspect

from numnet.errors import NumnetError
from numnet.models import mobilenet_v1
from numnet.models.common import Settings
from numnet.net import Net

MODELS = {"mobilenet_v1": (mobilenet_v1.layers, {})}

INITIALISERS = {"keras": "glorot_uniform", "torch": "he_fan_out", "paddle": "he_fan_in"}


def models() -> list[str]:
    """The names that ``build`` knows."""
    return list(MODELS)


def build(model, *, dtype="float32", seed=0, **options) -> Net:
    """The net ``model`` with parameters, initialised from ``seed``. Options and their defaults: design of ``Settings``.

    width, resolution, classes, padding, strides, variant, dropout, bn_eps, bn_momentum, activation, kernel, and what
    the model's own page adds. Raises NumnetError that names an unknown model or option and the nearest known one.
    """
    return _make(model, options, dtype, seed, allocate=True)


def describe(model, *, dtype="float32", seed=0, **options) -> Net:
    """The same net without arrays: its ``cost()`` and its summary."""
    return _make(model, options, dtype, seed, allocate=False)


def _make(model, options, dtype, seed, allocate):
    if model not in MODELS:
        raise NumnetError(f"model: expected one of {', '.join(MODELS)}, got {model!r}{_nearest(model, MODELS)}")
    make, fixed = MODELS[model]
    shared = set(Settings.__dataclass_fields__)
    own = {name for name, p in inspect.signature(make).parameters.items() if p.kind == p.KEYWORD_ONLY} - set(fixed)
    for name in options:
        if name not in shared | own:
            known = ", ".join(sorted(shared | own))
            raise NumnetError(f"{model}: no option {name!r}{_nearest(name, shared | own)}; it has {known}")
    settings = Settings(**{name: value for name, value in options.items() if name in shared})
    more = {name: value for name, value in options.items() if name in own}
    config = {"model": model, **options, "dtype": str(dtype), "seed": seed}
    try:
        layers = make(settings, **fixed, **more)
        return Net(
            layers,
            (settings.resolution, settings.resolution, 3),
            dtype=dtype,
            seed=seed,
            initialiser=INITIALISERS[settings.variant],
            config=config,
            allocate=allocate,
        )
    except NumnetError:
        raise
    except ValueError as error:
        raise NumnetError(f"{model}: {error}") from error


def _nearest(name, known):
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""
