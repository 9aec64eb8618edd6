"""The figure of ``numnet cost --plot``."""

from numnet.canvas import drawn, write
from numnet.plotting import DARK, LIGHT, MIDDLE, _figure

COLOURS = (DARK, MIDDLE, LIGHT, "#5f8f4e", "#8a6bb0", "#8c8c8c")
MOST = 400  # bars a net; no model here comes near


@drawn
def cost(nets, file=None):
    """Parameters and MACs, a bar for each layer that multiplies, two panels a net, coloured by layer type.

    nets: the dicts that ``numnet cost --json`` prints.
    """
    from matplotlib.patches import Patch

    shown = [[layer for layer in net["layers"] if layer["macs"]][:MOST] for net in nets]
    types = list(dict.fromkeys(layer["type"] for layers in shown for layer in layers))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(types)}
    longest = max(len(layers) for layers in shown)
    figure, panels = _figure(5 * 2 * len(nets), max(3.0, 0.16 * longest + 1.2), columns=2 * len(nets))
    for net, layers, left, right in zip(nets, shown, panels[::2], panels[1::2]):
        for axes, key, label in ((left, "params", "thousand parameters"), (right, "macs", "million MACs")):
            scale = 1e3 if key == "params" else 1e6
            colours = [colour[layer["type"]] for layer in layers]
            axes.barh(range(len(layers)), [layer[key] / scale for layer in layers], color=colours)
            axes.set_yticks(range(len(layers)), [layer["name"] for layer in layers], fontsize=6)
            axes.set_ylim(len(layers) - 0.4, -0.6)
            axes.set_xlabel(label)
            axes.grid(axis="x", alpha=0.3)
        total = f"{net['params'] / 1e6:.2f} M parameters, {net['macs'] / 1e6:,.0f} M MACs"
        left.set_title(f"{net['model']}: {total}", fontsize="medium", loc="left")
        right.set_yticklabels([])
    handles = [Patch(color=colour[name], label=name) for name in types]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(types), frameon=False)
    return write(figure, file)
