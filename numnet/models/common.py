"""What every model shares: the options of ``build``, the rounding of widths, the end of the net."""

from dataclasses import dataclass

from numnet.blocks import Norm
from numnet.errors import NumnetError
from numnet.initialisers import SCHEMES
from numnet.layers import Dense, Dropout, GlobalAverage

VARIANTS = ("keras", "torch", "paddle")


@dataclass
class Settings:
    """The options of ``numnet.build`` that all models know; None is the variant's own value."""

    width: float = 1.0
    resolution: int = 224
    classes: int = 1000
    padding: object = "same"
    strides: str = "imagenet"
    variant: str = "keras"
    dropout: float | None = None
    bn_eps: float | None = None
    bn_momentum: float | None = None
    activation: str | None = None
    kernel: int | None = None
    initialiser: str | None = None

    def __post_init__(self):
        for name, value, valid, expected in (
            (
                "width",
                self.width,
                _is_number(self.width) and 0 < self.width <= 8,
                "a number above 0, at most 8",
            ),
            ("resolution", self.resolution, _is_count(self.resolution), "an integer of at least 1"),
            ("classes", self.classes, _is_count(self.classes), "an integer of at least 1"),
            ("strides", self.strides, self.strides in ("imagenet", "cifar"), '"imagenet" or "cifar"'),
            ("variant", self.variant, self.variant in VARIANTS, "one of " + ", ".join(VARIANTS)),
            (
                "kernel",
                self.kernel,
                self.kernel is None or _is_count(self.kernel),
                "an integer of at least 1",
            ),
            (
                "initialiser",
                self.initialiser,
                self.initialiser is None or self.initialiser in SCHEMES,
                "one of " + ", ".join(SCHEMES),
            ),
        ):
            if not valid:
                raise NumnetError(f"{name}: expected {expected}, got {value!r}")

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
    def stem_stride(self):
        """2, or 1 where 32×32 inputs are to keep their size."""
        return 1 if self.strides == "cifar" else 2

    def stages(self, rows):
        """The rows of a table; for 32×32 inputs the first stage of stride 2 keeps its size, as the stem does."""
        first = next(i for i, row in enumerate(rows) if row.s == 2)
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
        valid = self.se in (None, False, True) or (_is_number(self.se) and 0 < self.se <= 1)
        if not valid:
            raise NumnetError(
                f"se: expected None, False, True or a ratio above 0, at most 1, got {self.se!r}"
            )
        if not isinstance(self.skip, bool):
            raise NumnetError(f"skip: expected True or False, got {self.skip!r}")

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
    """Global average pooling, dropout where the rate is not 0, and the dense layer."""
    return [GlobalAverage(name="pool"), *dropped(settings, dropout), Dense(settings.classes, name="logits")]


def dropped(settings, dropout, name="dropout", **more):
    """A dropout layer of the rate that was asked for, or of the variant's own; none if that is 0."""
    rate = settings.pick("dropout", **dropout)
    return [Dropout(rate, name=name, **more)] if rate != 0 else []


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
