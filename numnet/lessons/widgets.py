"""Figures with sliders, for a notebook that runs; without a running kernel or ipywidgets, the same figures as they are.

    widgets.explore(draw, filters=([8, 64, 512], 64))      draw(filters=64) with a slider below it
    widgets.walk(x, w)                  notebook 1: lead a kernel over an image
    widgets.separable()                 notebook 2: MACs of standard and separable convolution at any size
    widgets.width_and_resolution()      notebook 7: what a net costs at each width and resolution

The last line of a cell is one of them. The picture is in the cell's output as well, so a page that runs nothing shows it.
``NUMNET_WIDGETS=0`` leaves the sliders out: set it when a notebook is executed to be kept.
"""

import os

from numnet.errors import NumnetError


def live() -> bool:
    """True where sliders work: in a Jupyter kernel, with ipywidgets, and NUMNET_WIDGETS is not 0."""
    if os.environ.get("NUMNET_WIDGETS", "1") == "0":
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def explore(draw, **sliders):
    """The figure ``draw(**values)`` with a slider for each keyword: name=(values, the first value to show).

    draw: a function that gives a figure of ``lessons.figure``. values: the list of what the slider may be set to, numbers
    or texts. Raises NumnetError for a first value that is not among them.
    """
    for name, (values, first) in sliders.items():
        if first not in values:
            raise NumnetError(
                f"explore: {name} starts at {first!r}, expected one of {', '.join(map(str, values))}"
            )
    return Explorer(draw, sliders)


class Explorer:
    """What ``explore`` gives: Jupyter shows the sliders and the figure, everything else the figure."""

    def __init__(self, draw, sliders):
        self.draw = draw
        self.values = {name: first for name, (_, first) in sliders.items()}
        self.sliders, self.box = {}, None
        if live():
            self._connect(sliders)

    def _connect(self, sliders):
        import ipywidgets

        self.picture = ipywidgets.Image(format="png")
        for name, (values, first) in sliders.items():
            slider = ipywidgets.SelectionSlider(
                options=[(str(value), value) for value in values],
                value=first,
                description=name.replace("_", " "),
                continuous_update=False,  # a figure takes a tenth of a second: it is drawn when the slider rests
                style={"description_width": "8em"},
                layout={"width": "32em"},
            )
            slider.observe(self._moved, "value")
            self.sliders[name] = slider
        self._moved()
        self.box = ipywidgets.VBox([*self.sliders.values(), self.picture])

    def _moved(self, _=None):
        self.values = {name: slider.value for name, slider in self.sliders.items()}
        data, size = self._png()
        self.picture.value = data
        self.picture.width, self.picture.height = str(size["width"]), str(size["height"])

    def _png(self):
        """PNG of the figure, and its width and height on the page."""
        return self.draw(**self.values)._repr_png_()

    def _repr_mimebundle_(self, include=None, exclude=None):
        png, size = self._png()
        data = {"image/png": png, "text/plain": repr(self)}
        if self.box is not None:
            data |= self.box._repr_mimebundle_()
            data["text/plain"] = repr(self)
        return data, {"image/png": size}

    def __repr__(self):
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.values.items())
        return f"<a figure for {shown}>"


# ---------------------------------------------------------------------------------------------- the notebooks' own


def walk(x, w, stride=1):
    """Notebook 1: an image (H, W) and a kernel (K, K); sliders choose the output number (row p, column q)."""
    from numnet.kernels.padding import output_side
    from numnet.lessons.convolution import window

    rows, columns = (list(range(output_side(side, len(w), stride, 0, 0))) for side in x.shape)
    return explore(lambda row, column: window(x, w, row, column, stride), row=(rows, 0), column=(columns, 0))


def separable():
    """Notebook 2: MACs of a standard convolution beside its separable one, for any K, C, F and side of the map."""
    from numnet.lessons.separable import at_size

    channels = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    return explore(
        lambda **sizes: at_size(sizes["kernel_K"], sizes["channels_C"], sizes["filters_F"], sizes["side"]),
        kernel_K=([1, 2, 3, 4, 5, 7, 9], 3),
        channels_C=(channels, 64),
        filters_F=(channels, 128),
        side=([1, 7, 14, 28, 56, 112, 224], 56),
    )


def width_and_resolution(model="mobilenet_v1"):
    """Notebook 7: MACs, parameters and maps of a net, as parts of those at width 1.0 and 224 pixels."""
    from numnet.lessons.budget import one_net

    return explore(
        lambda width, resolution: one_net(model, width, resolution),
        width=([0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.4], 0.5),
        resolution=([96, 128, 160, 192, 224, 256], 160),
    )
