"""What every model shares: the options of ``build``, the rounding of widths, the end of the net."""

from dataclasses import dataclass

from numnet.blocks import Norm
from numnet.errors import NumnetError
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

    def __post_init__(self):
        for name, value, valid, expected in (
            ("width", self.width, _is_number(self.width) and 0 < self.width <= 8, "a number above 0, at most 8"),
            ("resolution", self.resolution, _is_count(self.resolution), "an integer of at least 1"),
            ("classes", self.classes, _is_count(self.classes), "an integer of at least 1"),
            ("strides", self.strides, self.strides in ("imagenet", "cifar"), '"imagenet" or "cifar"'),
            ("variant", self.variant, self.variant in VARIANTS, "one of " + ", ".join(VARIANTS)),
            ("kernel", self.kernel, self.kernel is None or _is_count(self.kernel), "an integer of at least 1"),
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


def round_to_8(value, divisor=8):
    """The nearest multiple of 8, at least 8, and never less than 90 % of the value (Sandler et al. 2018's code)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def classifier(settings, dropout):
    """Global average pooling, dropout where the rate is not 0, and the dense layer."""
    rate = settings.pick("dropout", **dropout)
    end = [GlobalAverage(name="pool")]
    if rate:
        end.append(Dropout(rate, name="dropout"))
    return [*end, Dense(settings.classes, name="logits")]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
