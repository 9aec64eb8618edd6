"""The file of a net in eight bits, written and read: int8 weights, int32 biases, float32 scales, and the steps as JSON.

It is a checkpoint like any other. ``check`` looks at what passes rely on: they read memory by the shapes that a file says.
"""

import numpy as np

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.kernels.activations import CODES
from numnet.kernels.eight_bits import Grid
from numnet.quantised.steps import MOVES, NAMES, SUMS, Step

FORMAT = 2  # of a checkpoint's document; readers of floats know 1
KINDS = (*SUMS, *MOVES, "add", "average", "table", "excite", "concat")
FRAMED = ("conv", "depthwise", "maximum")  # steps that have a window


def write(net, path, meta) -> None:
    """Write the QuantisedNet; ``meta`` joins its document."""
    tensors, rows = {}, []
    for step in net.steps:
        row = {"kind": step.kind, "name": step.name, "reads": list(step.reads), "shape": list(step.shape)}
        if step.kind in FRAMED:
            row["frame"] = [step.frame[0], step.frame[1], [list(pad) for pad in step.frame[2]]]
        if step.code:
            row["activation"] = NAMES[step.code]
        if step.beta != 1:
            row["beta"] = step.beta
        if step.grid is not None:
            row["grid"] = list(step.grid)
            if tuple(step.bounds) != (0, 255):
                row["bounds"] = list(step.bounds)
        if step.weight is not None:
            for key in ("weight", "bias", "scales"):
                tensors[f"{step.name}.{key}"] = getattr(step, key)
        if step.line:
            row["line"] = list(step.line)
        rows.append(row)
    document = {**net.document, "format": FORMAT, "config": net.config, "input": net.scaling}
    document |= {"classes": net.class_names, **meta}
    document["quantised"] = {
        "grid": list(net.grid), "input_shape": list(net.input_shape), "steps": rows
    }  # fmt: skip
    checkpoint.write(path, tensors, {key: value for key, value in document.items() if value is not None})


def is_quantised(document) -> bool:
    """Whether a checkpoint's document is that of a net in eight bits."""
    return isinstance(document.get("quantised"), dict)


def read(make, path, document, tensors):
    """The net of a checkpoint's document and arrays; ``make``: the class QuantisedNet. NumnetError for a damaged one."""
    facts = document["quantised"]
    try:
        net = make(
            [_read_step(row, tensors, number) for number, row in enumerate(facts["steps"])],
            _read_grid(facts["grid"]), [int(n) for n in facts["input_shape"]], config=document.get("config"),
            scaling=document.get("input"), class_names=document.get("classes"), document=document,
        )  # fmt: skip
        check(net)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        words = " ".join(str(error).split())
        raise NumnetError(f"{path}: damaged checkpoint of a net in eight bits ({words})") from None
    return net


def _read_grid(pair) -> Grid:
    grid = Grid(float(pair[0]), int(pair[1]))
    if not (0 < grid.scale < 1e30 and 0 <= grid.zero <= 255):
        raise ValueError(f"a grid {pair}")
    return grid


def _read_step(row, tensors, number) -> Step:
    if row["kind"] not in KINDS:
        raise ValueError(f"a step of kind {row['kind']!r}")
    reads, shape = tuple(map(int, row["reads"])), tuple(map(int, row["shape"]))
    if any(not 0 <= i <= number for i in reads) or any(n < 1 for n in shape):
        raise ValueError(f"step {row['name']!r} reads {reads}")
    step = Step(row["kind"], str(row["name"]), reads, shape, beta=float(row.get("beta", 1.0)))
    if "frame" in row:
        k, stride, pads = row["frame"]
        step.frame = int(k), int(stride), tuple(tuple(map(int, pad)) for pad in pads)
    step.code = CODES[row.get("activation", "identity")]
    if "grid" in row:
        step.grid, step.bounds = _read_grid(row["grid"]), tuple(map(int, row.get("bounds", (0, 255))))
    elif step.kind not in SUMS:
        raise ValueError(f"step {step.name!r} has no grid")
    if step.kind in SUMS:
        step.weight, step.bias, step.scales = (
            tensors[f"{step.name}.{key}"] for key in ("weight", "bias", "scales")
        )
    elif step.kind == "table" and "line" in row:
        slope, shift = row["line"]
        step.line = float(slope), float(shift)
    return step


def check(net) -> None:
    """Shapes that fit each other, or ValueError: the passes read memory by them."""
    shapes = [net.input_shape, *(step.shape for step in net.steps)]
    for step in net.steps:
        inputs = [shapes[i] for i in step.reads]
        if any(net.grids[i] is None for i in step.reads):
            raise ValueError(f"step {step.name!r} reads a map without a grid")
        fits = len(inputs) == (2 if step.kind in ("add", "excite") else 1) or step.kind == "concat"
        x = inputs[0]
        if step.kind in SUMS:
            w, f = step.weight, step.filters
            kinds = w.dtype in (np.int8, np.int16) and step.bias.dtype == np.int32
            fits &= kinds and step.scales.dtype == np.float32 and step.bias.shape == step.scales.shape == (f,)
            fits &= bool((step.scales > 0).all() and np.isfinite(step.scales).all())
            k = step.frame[0]
            if step.kind == "dense":
                fits &= len(x) == 1 and w.shape == (1, 1, x[0], f)
            else:
                fits &= _window_fits(step, x) and len(step.shape) == 3
                if step.kind == "conv":
                    fits &= w.shape == (k, k, x[2], f)
                else:
                    fits &= w.shape[:3] == (k, k, x[2]) and w.ndim == 4 and f == x[2] * w.shape[3]
        elif step.kind in ("add", "table"):
            fits &= all(shape == step.shape for shape in inputs)
            fits &= bool(np.isfinite(step.line).all())
        elif step.kind == "average":
            fits &= step.shape in ((x[-1],), (1, 1, x[-1]))
        elif step.kind == "excite":
            fits &= step.shape == x and len(x) == 3 and inputs[1] == (x[-1],)
        elif step.kind == "maximum":
            # No window lies in the padding altogether.
            fits &= _window_fits(step, x) and max(map(max, step.frame[2])) < step.frame[0]
            fits &= step.filters == x[-1] and len(step.shape) in (1, 3)
            fits &= step.grid == net.grids[step.reads[0]]
        elif step.kind == "concat":
            fits &= all(len(shape) == 3 and shape[:2] == step.shape[:2] for shape in inputs)
            fits &= len(step.shape) == 3 and sum(shape[-1] for shape in inputs) == step.filters
        else:
            fits &= int(np.prod(x)) == int(np.prod(step.shape))
        if not fits:
            raise ValueError(f"step {step.name!r} does not fit what it reads")


def _window_fits(step, x) -> bool:
    """Whether a step's window over maps of shape x gives the rows and columns of its output."""
    k, stride, ((top, bottom), (left, right)) = step.frame
    if len(x) != 3 or not (1 <= k < 2**31 and 1 <= stride < 2**31 and 0 <= min(top, bottom, left, right)):
        return False
    sides = (x[0] + top + bottom - k) // stride + 1, (x[1] + left + right - k) // stride + 1
    return max(top, bottom, left, right) <= k and sides == step.map_shape[:2]
