"""What every model shares: the options of ``build``, the rounding of widths, the end of the net."""

from dataclasses import dataclass

from numnet.blocks import Norm
from numnet.errors import NumnetError
from numnet.initialisers import SCHEMES
from numnet.kernels.activations import CODES
from numnet.layers import Activation, Dense, Dropout, GlobalAverage

VARIANTS = ("keras", "torch", "paddle")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value, most=float("inf")):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _among(*values):
    return lambda value: isinstance(value, str) and value in values


def _padding(value):
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(n, (list, tuple)) for n in numbers):
        return all(map(_padding, numbers))
    return all(n <= 10_000 for n in numbers if _is_number(n))


MOST_ROWS, MOST_CHANNELS = 100, 1 << 14
CHANNELS = (lambda v: _is_count(v, MOST_CHANNELS)), f"an integer of at least 1, at most {MOST_CHANNELS}"
STRIDE = (lambda v: _is_count(v, 8)), "an integer of at least 1, at most 8"
KERNEL = (lambda v: _is_count(v, 255)), "an integer of at least 1, at most 255"
REPEATS = (lambda v: _is_count(v, 100)), "an integer of at least 1, at most 100"
ACTIVATION = (lambda v: isinstance(v, str) and v in CODES), "one of " + ", ".join(CODES)


def own_rows(kind, rows, /, **entries):
    """A user's table as rows of ``kind``, a named tuple; entries: for each field (check, what it expects).

    Raises NumnetError that names the row and the entry. None stays None.
    """
    if rows is None:
        return None
    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= MOST_ROWS:
        raise NumnetError(
            f"rows: expected {_form(kind)}, at least one and at most {MOST_ROWS}, got {shown(rows)}"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, (list, tuple)) or len(row) != len(kind._fields):
            raise NumnetError(f"rows: expected {_form(kind)}, got {shown(row)} as row {number}")
        for (name, (valid, expected)), value in zip(entries.items(), row):
            if not valid(value):
                raise NumnetError(
                    f"rows: expected {_form(kind)}; {name} of row {number} is {shown(value)}, not {expected}"
                )
    return [kind(*row) for row in rows]


def _form(kind):
    return f"a list of [{', '.join(kind._fields)}]"


def shown(value):
    """A value in a message, not too long of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _head(value):
    return (
        isinstance(value, (list, tuple))
        and len(value) <= 4
        and all(isinstance(row, (list, tuple)) and len(row) == 2 for row in value)
        and all(_is_count(units, 1 << 14) and _among(*CODES)(name) for units, name in value)
    )


def _is_side(value):
    return _is_count(value, 1 << 14)


def _or_none(valid):
    return lambda value: value is None or valid(value)


# What a keyword of ``numnet.build`` may be, for those that any kind of value could be given to: (valid, expected).
# The upper bounds keep a mistyped or hostile number from asking for more memory than there is.
KEYWORDS = {
    "width": (lambda v: _is_number(v) and 0 < v <= 8, "a number above 0, at most 8"),
    "resolution": (
        lambda v: _is_side(v) or (isinstance(v, (list, tuple)) and len(v) == 2 and all(map(_is_side, v))),
        "an integer of at least 1, at most 16384, or [height, width]",
    ),
    "classes": (
        lambda v: _is_count(v, 1_000_000) or (isinstance(v, int) and not isinstance(v, bool) and v == 0),
        "an integer of at least 1, at most 1000000, or 0 for a net without classifier",
    ),
    "channels": (lambda v: _is_count(v, 1 << 10), "an integer of at least 1, at most 1024"),
    "padding": (_padding, "at most 10000 pixels"),  # of what kind, each layer says
    "strides": (_among("imagenet", "cifar"), '"imagenet" or "cifar"'),
    "variant": (_among(*VARIANTS), "one of " + ", ".join(VARIANTS)),
    "bn_eps": (_or_none(lambda v: _is_number(v) and 0 < v < float("inf")), "a number above 0"),
    "bn_momentum": (_or_none(lambda v: _is_number(v) and 0 <= v < 1), "a number of at least 0, below 1"),
    "activation": (_or_none(_among(*CODES)), "one of " + ", ".join(CODES)),
    "bottleneck_activation": (_or_none(_among(*CODES)), "one of " + ", ".join(CODES)),
    "kernel": (_or_none(lambda v: _is_count(v, 255)), "an integer of at least 1, at most 255"),
    "initialiser": (_or_none(_among(*SCHEMES)), "one of " + ", ".join(SCHEMES)),
    "head": (
        _or_none(_head),
        "a list of [units, activation] of the dense layers between pooling and classifier, at most 4; [] for none",
    ),
    "depth_multiplier": (lambda v: _is_count(v, 64), "an integer of at least 1, at most 64"),
    "separable": (lambda v: isinstance(v, bool), "True or False"),
    "shallow": (lambda v: isinstance(v, bool), "True or False"),
    "skip": (lambda v: isinstance(v, bool), "True or False"),
    **dict.fromkeys(("stem", "last", "wide"), (_or_none(CHANNELS[0]), CHANNELS[1])),
    "seed": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 63,
        "an integer of at least 0, below 2**63",
    ),
}


def check(name, value):
    """Raise NumnetError if no net can have this value of the keyword ``name``."""
    valid, expected = KEYWORDS.get(name, (lambda value: True, ""))
    if not valid(value):
        thinner = "; fewer channels everywhere: width=0.5" if name == "depth_multiplier" else ""
        raise NumnetError(f"{name}: expected {expected}, got {shown(value)}{thinner}")


@dataclass
class Settings:
    """The options of ``numnet.build`` that all models know; None is the variant's own value.

    ``resolution``: the side of the images, or [height, width]. ``classes``: 0 for a net that ends with what its classifier
    would read. ``channels``: of an image's pixel, 1 for grey ones. ``strides``: "cifar" gives the stem stride 1 and, but
    for V1, the first stage of stride 2 as well, own ``rows`` too.
    """

    width: float = 1.0
    resolution: object = 224
    classes: int = 1000
    channels: int = 3
    padding: object = "same"
    strides: str = "imagenet"
    variant: str = "keras"
    dropout: float | None = None
    bn_eps: float | None = None
    bn_momentum: float | None = None
    activation: str | None = None
    kernel: int | None = None
    initialiser: str | None = None
    head: object = None

    def pick(self, name, **of_variant):
        """The option if it was given, else the variant's own value."""
        given = getattr(self, name)
        return of_variant[self.variant] if given is None else given

    def norm(self, eps, momentum=0.9):
        """Batch norm's settings; ``eps``: a number, or a dict from variant to number."""
        own = eps[self.variant] if isinstance(eps, dict) else eps
        return Norm(
            eps=own if self.bn_eps is None else self.bn_eps,
            momentum=momentum if self.bn_momentum is None else self.bn_momentum,
            unbiased=self.variant == "torch",
        )

    @property
    def input_shape(self):
        """(H, W, C) of an image."""
        sides = self.resolution if isinstance(self.resolution, (list, tuple)) else [self.resolution] * 2
        return (*sides, self.channels)

    @property
    def stem_stride(self):
        """2, or 1 where 32×32 inputs are to keep their size."""
        return 1 if self.strides == "cifar" else 2

    def stages(self, rows):
        """The rows of a table; for 32×32 inputs the first stage of stride 2 keeps its size, as the stem does."""
        first = next((i for i, row in enumerate(rows) if row.s == 2), None)
        return [
            row._replace(s=1) if self.strides == "cifar" and i == first else row for i, row in enumerate(rows)
        ]

    def without(self, model, *names):
        """Raise NumnetError if an option was given that means nothing to this model."""
        for name in names:
            usual = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != usual:
                raise NumnetError(
                    f"{name}: {model} has no such choice, expected {usual!r}, got {getattr(self, name)!r}"
                )


@dataclass
class Bottleneck:
    """The options that only nets of inverted residuals know.

    se: None is the paper's own choice, False none, a ratio above 0 (True: 1/4) squeezes every block to that part of its
    expanded channels. bottleneck_activation: after the projection's batch norm (the papers: none, a linear bottleneck).
    skip: False leaves all additions out.
    """

    se: object = None
    bottleneck_activation: str | None = None
    skip: bool = True

    def __post_init__(self):
        # By type: 0 equals False, and is no ratio
        valid = self.se is None or isinstance(self.se, bool) or (_is_number(self.se) and 0 < self.se <= 1)
        if not valid:
            raise NumnetError(
                f"se: expected None, False, True or a ratio above 0, at most 1, got {self.se!r}"
            )

    def squeeze(self, expanded, own=0):
        """Channels of the squeeze-and-excite in a block of so many expanded channels; ``own``: the paper's."""
        if self.se is None:
            return own
        if self.se is False:
            return 0
        return round_to_8(expanded * (0.25 if self.se is True else self.se))

    @property
    def frame(self):
        """Keywords of InvertedResidual."""
        return {"bottleneck_activation": self.bottleneck_activation or "identity", "skip": self.skip}


def round_to_8(value, divisor=8):
    """The nearest multiple of 8, at least 8, and never less than 90 % of the value (Sandler et al. 2018's code)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def classifier(settings, dropout):
    """Global average pooling, the layers of ``head``, and ``ending``."""
    return [GlobalAverage(name="pool"), *hidden(settings), *ending(settings, dropout)]


def ending(settings, dropout, **more):
    """Dropout where the rate is not 0, and the dense layer; for ``classes=0`` no more than what the classifier would read."""
    if settings.classes == 0:  # PaddlePaddle's dropout scales that, in inference, too
        return dropped(settings, dropout, **more) if more.get("downscale") else []
    return [*dropped(settings, dropout, **more), Dense(settings.classes, name="logits")]


def hidden(settings):
    """The dense layers of ``head``, which stand between pooling and classifier in a net of one's own."""
    layers = []
    for number, (units, activation) in enumerate(settings.head or (), start=1):
        layers.append(Dense(units, name=f"hidden{number}"))
        if activation != "identity":
            layers.append(Activation(activation, name=f"hidden{number}_act"))
    return layers


def dropped(settings, dropout, name="dropout", **more):
    """A dropout layer of the rate that was asked for, or of the variant's own; none if that is 0."""
    rate = settings.pick("dropout", **dropout)
    return [Dropout(rate, name=name, **more)] if rate != 0 else []
