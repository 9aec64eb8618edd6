"""One-line faults, made systematically in the kernel pages: do the tests see each of them?

    python tests/long/mutations.py                    a sample of every page's faults, 320 in all
    python tests/long/mutations.py depthwise product  these pages only
    python tests/long/mutations.py --faults 0         all faults there are, thousands
    python tests/long/mutations.py --list             name them, run nothing

A fault is one small change in one line of a row function or a pass: an index one further, < for <=, + for −, min for max,
a bound, a number, a call left out (a store, a zeroing, a flush, a copy of what is left over), a condition that is always or
never true. For each, a forked process imports the page with the fault in it, as plain Python with two lanes and with tiles
so small that everything is cut (`tests/kernel_checks.py`, whose checks CI runs compiled), and stops at the first check that
fails. Nothing is compiled and no file is written. Reports each fault as caught or survived; exit code 1 if one survived that
is not in ``SAME`` below: those change no result, each with its reason.
"""

import argparse
import ast
import collections
import importlib.machinery
import importlib.util
import os
import random
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

os.environ.update(NUMBA_DISABLE_JIT="1", NUMNET_LANES="4")  # 4 of float32 are 2 of float64
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS)]

import numba  # noqa: E402, F401  imported once, before forking: what takes long
import numpy as np  # noqa: E402, F401
import pytest  # noqa: E402, F401

try:
    import matplotlib  # noqa: F401
except ImportError:
    pass

PAGES = {  # page: the pages whose checks concern it
    "activations": ["activations", "batchnorm", "product", "depthwise"],
    "batchnorm": ["batchnorm", "pointwise", "pooling", "residual", "squeeze_excite"],
    "concat": ["concat"],
    "conv": ["conv"],
    "dense": ["dense"],
    "depthwise": ["depthwise", "inverted"],
    "exponential": ["exponential"],
    "folding": ["folding", "product", "depthwise"],
    "inverted": ["inverted"],
    "maps": ["product", "batchnorm", "pointwise", "conv", "depthwise"],
    "moments": ["moments", "batchnorm"],
    "pointwise": ["pointwise", "product"],
    "pooling": ["pooling"],
    "product": ["product", "pointwise"],
    "residual": ["residual"],
    "ring": ["depthwise", "inverted"],
    "rows": ["residual", "pointwise", "conv", "depthwise"],
    "squeeze_excite": ["squeeze_excite", "inverted"],
    "taps": ["depthwise", "inverted"],
}
MOST = 120  # seconds of processor time that the checks of a page may take


# --- the faults of a page -----------------------------------------------------------------------------------


class Fault:
    """Text from ``first`` to ``last`` (character offsets) becomes ``text``."""

    def __init__(self, page, function, node, first, last, text, source):
        self.page, self.function, self.first, self.last, self.text = page, function, first, last, text
        begin = source.rfind("\n", 0, first) + 1
        end = source.find("\n", last)
        self.before = " ".join(source[begin:end].split())
        self.after = " ".join((source[begin:first] + text + source[last:end]).split())
        self.line = node.lineno

    def counts(self, source):
        """Left out: changes over several lines; refusing wrong arguments, which `test_kernels_arguments.py` is about; the
        −1 of a reshape, which any negative number may stand for; and shapes of arrays without a number in them.
        """
        if "\n" in source[self.first : self.last] or "_check." in self.before or "raise " in self.before:
            return False
        near = source[max(self.first - 12, 0) : self.first]
        empty = re.search(r"np\.(zeros|empty)\(\(0, [^)]*$", source[max(self.first - 24, 0) : self.first])
        return not re.search(r"(reshape\(|, )-$", near) and not empty

    def __str__(self):
        return f"{self.page}.{self.function} (line {self.line}): {self.before}   →   {self.after}"


COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.FloorDiv: "*", ast.Mod: "//", ast.Div: "*"}
OTHER = {
    "min": "max",
    "max": "min",
    "least": "most",
    "most": "least",
    "add": "copy",
    "True": "False",
    "False": "True",
}
PASSES_OR_ROWS = ("row", "kernel")


def faults_of(page):
    source = (ROOT / "numnet" / "kernels" / f"{page}.py").read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines()

    def at(line, column):  # ast counts bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(node):
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    found = []

    def add(function, node, first, last, text):
        if source[first:last] != text:
            found.append(Fault(page, function.name, node, first, last, text, source))

    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef) or "definition" in function.name:
            continue
        if function.name in ("_arguments", "code_of", "_vectors", "_map") or function.name.endswith("_cost"):
            continue
        docstring = function.body[0] if ast.get_docstring(function) else None
        for node in (n for part in function.body if part is not docstring for n in ast.walk(part)):
            if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
                left, right = span(node.left)[1], span(node.comparators[0])[0]
                add(function, node, left, right, f" {COMPARE[type(node.ops[0])]} ")
            elif isinstance(node, ast.Compare) and len(node.ops) == 2:
                add(function, node, span(node.comparators[0])[1], span(node.comparators[1])[0], " <= ")
            elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
                between = source[span(node.left)[1] : span(node.right)[0]]
                if not set(between) & set("()"):
                    add(
                        function,
                        node,
                        span(node.left)[1],
                        span(node.right)[0],
                        f" {ARITHMETIC[type(node.op)]} ",
                    )
            elif isinstance(node, ast.Constant) and type(node.value) is int:
                add(function, node, *span(node), str(node.value + 1))
                if node.value > 0:
                    add(function, node, *span(node), str(node.value - 1))
            elif isinstance(node, ast.Constant) and type(node.value) is bool:
                add(function, node, *span(node), str(not node.value))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OTHER:
                add(function, node, *span(node.func), OTHER[node.func.id])
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
                add(function, node, *span(node.slice), f"{node.slice.id} + 1")
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
                for bound in (node.slice.lower, node.slice.upper):
                    if isinstance(bound, (ast.Name, ast.BinOp)):
                        add(function, node, *span(bound), source[slice(*span(bound))] + " + 1")
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                add(function, node, span(node)[0], span(node.operand)[0], "")
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                add(function, node, *span(node), "pass")  # a call left out
            elif isinstance(node, ast.AugAssign):
                if isinstance(node.op, ast.Add):
                    add(function, node, span(node.target)[1], span(node.value)[0], " = ")
                add(function, node, *span(node), "pass")
            elif isinstance(node, (ast.If, ast.IfExp)):
                for value in ("True", "False"):
                    add(function, node, *span(node.test), value)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                add(function, node, *span(node), "pass")
    return [fault for fault in found if fault.counts(source)]


# --- running one --------------------------------------------------------------------------------------------


class Faulty(importlib.machinery.SourceFileLoader):
    fault = None

    def get_code(self, fullname):
        source = Path(self.path).read_text()
        return compile(
            source[: self.fault.first] + self.fault.text + source[self.fault.last :], self.path, "exec"
        )


class Finder:
    """Finds the page with the fault in it."""

    def __init__(self, fault):
        self.fault = fault

    def find_spec(self, fullname, path, target=None):
        if fullname == f"numnet.kernels.{self.fault.page}":
            file = str(ROOT / "numnet" / "kernels" / f"{self.fault.page}.py")
            loader = Faulty(fullname, file)
            loader.fault = self.fault
            return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def check(fault, pages):
    """In a forked process: the first check that fails, or an empty text."""
    warnings.simplefilter("ignore")
    if fault is not None:
        sys.meta_path.insert(0, Finder(fault))
    try:
        import kernel_checks

        kernel_checks.shrink()
        done = set()
        for page in pages:
            for function in kernel_checks.CHECKS[page]:
                if function not in done:
                    done.add(function)
                    name = function.__name__
                    function()
    except BaseException as error:
        return f"{locals().get('name', 'import')}: {type(error).__name__}"
    return ""


def run(fault, pages, seconds=MOST):
    """check() in a process of its own. More than so many seconds of processor time: it never ends, which is seen too."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os.write(writing, check(fault, pages).encode()[:1000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return text


# --- faults that change no result ---------------------------------------------------------------------------

# (pages, functions, what the line is with the fault, reason); the first three are regular expressions. With an arrow the
# third is of the line before and with the fault: "if a: → if True".
OTHER_CUT = "cuts the work into other tiles or parts: the same sums, or sums in another order"
MORE_ROOM = "more scratch than is needed"
NOT_READ = "a field that this caller's row functions do not read"
BY_ANOTHER = "the row function goes by another array's length"
SAME = [
    (".*", ".*", r"max\([12], TILE [*/]", OTHER_CUT),
    (".*", ".*", r"prange\(.* [-+] [0-9]+\) // [A-Za-z0-9_]+\b", "one tile more, without rows"),
    (".*", "inference_cut|cut_of|tile_rows|parts_of", ".*", OTHER_CUT),
    (".*", ".*", r"parts_of\(", OTHER_CUT),
    (".*", ".*", r"np\.empty\((3 \* channels|size if True)", MORE_ROOM),
    (
        ".*",
        ".*",
        r"(line_up|ring_of|image_ring)\(.* (copies|pack\.size|dx\.size) > 0|if True else",
        MORE_ROOM,
    ),
    ("depthwise|ring", "image_ring|_backward", r"if copies > 0 else 0", MORE_ROOM),
    (
        "ring",
        "see",
        r"if True:",
        "copies of each channel, of which there is one: every number onto itself",
    ),
    (
        "taps",
        "convolve|correlate",
        r"line\.side [!=]= |^(el)?if False:",
        "this number of taps goes tap by tap",
    ),
    ("taps", "convolve", r"four, zeros\(y, 1, 1", "two taps go one by one"),
    ("taps", "convolve", r"^if True:|rest >= 0", "a rest without pixels"),
    ("taps", "correlate", r"^u = 4", "no more rows of taps, as before"),
    ("depthwise", "_backward", r"dxs\[lo : hi \+ 1\]|dxs\[lo:hi \+ 1\]", BY_ANOTHER),
    (
        "taps",
        "sum_window|correlate_line",
        r"^if False:",
        "says nothing of how loads repeat: the same numbers",
    ),
    ("depthwise", "back_of", r"copies >=? [01] else|size \* outputs|\+ 2\) \* outputs", MORE_ROOM),
    ("depthwise", "dx_row", r"^if True:", "a line without pixels"),
    (
        "inverted",
        "filter_tile",
        r"image_ring\(e\[0\], 0",
        "whether there are copies is asked, and there are none",
    ),
    ("batchnorm", "_add_gradient_sums", r"x\.size \* channels", OTHER_CUT),
    (
        "batchnorm",
        "batchnorm_forward",
        r"^if False:",
        "refuses a wrong argument, see test_kernels_arguments.py",
    ),
    ("batchnorm", "close_gradient_sums", r"total_gamma / count if count > 1", "of one number dγ is 0"),
    ("taps", "at_once", ".*", "another number of pixels at a time"),
    ("depthwise", "_forward|_backward", r"HOT|PIXELS", OTHER_CUT),
    ("depthwise", "_backward", r"^counted, summed = ", OTHER_CUT),
    ("ring", "ring_of", r"\(r - 1\) \* length", "at the first row, all rows are zeroed"),
    ("depthwise", "dx_row", r"if lo <= hi", "a line without pixels"),
    (".*", ".*", r"np\.(empty|zeros)\(\(1, [23], 0\)", "sums without channels, as before"),
    (".*", "with_lanes|unit_forward", r"lanes\(.*shape\[[02]\]", "other lanes, and so the same numbers"),
    ("conv", "_forward", r"\(last \+ first\) \* rows, step", "turns that have no rows"),
    ("activations", "logistic", r"x > spread\(_0", "at 0 both ways give a half"),
    ("moments", "add_moments", r"moments\[1, 0\]$", "a mean that is 0 asks for another centre, as good"),
    ("moments", "add_moments", r"^pass$", "sums around the first pixel: the same but for rounding"),
    ("batchnorm", "_normalise_activate", r"step \+ 1\]", BY_ANOTHER),
    ("inverted", "_squeeze_excite", r"max\(len\(y\), 0\)", "a batch of nothing, which never comes here"),
    ("pointwise", "_backward", r"(channels|filters) \+ 1\]", BY_ANOTHER),
    ("pointwise", "_sum_parts", r"min\(held \+ n", "the last vector is copied twice"),
    ("pooling", "global_max_forward", r"h, w, [02], 0", "one window, which has no stride"),
    ("product|dense", "multiply|few_images", r"2 \+ n", "with vectors of two numbers 2 + n is 2 · n"),
    ("dense|folding", "few_images|fold_all", r"(filters|count) \+ 1\]", BY_ANOTHER),
    ("dense", "few_images", r"\* n < filters", "the last vectors go singly"),
    ("dense", "sums_of", r", f, 1, places\)", "a tile of one row, which has no step"),
    ("dense", "few_images", r"zeros\(y, 2, ", "the same row twice, stored into one place"),
    ("dense", "inference_step", r", y, [79], lanes", OTHER_CUT),
    ("depthwise", "inference_step", r"^[35], -\(", OTHER_CUT),
    ("conv", "gather_row", r"line \+ 1\]", "the number behind it is written next, or is none of the tile's"),
    ("conv", "_backward", r"else \(1, 0\)", MORE_ROOM),
    ("pointwise", "_inference", r"if False else room", "both tiles pack the same numbers into one place"),
    ("pointwise", "_inference", r"^panels = ", OTHER_CUT),
    ("pointwise", "inference_step", r"^cut = ", OTHER_CUT),
    ("pointwise", "_sum_parts", r"\* 1[57]", "some rows are added up twice, to the same numbers"),
    ("ring", "image_ring", r"pixels - 0\)", MORE_ROOM),
    ("activations", "activate_rows", r"^if False:", "the identity stores what it has loaded"),
    ("depthwise", "dx_row", r"copies >= 1:|copies > 0:", "one copy is added up: every number onto itself"),
    ("ring", "ring_of", r"np\.zeros\(2, ", MORE_ROOM),
    ("depthwise", "_backward", r"reach = .*(\+ 2\)|x_size \+ copies)", MORE_ROOM),
    ("product", "multiply_panel", r"load_tile\(.*, 0, 1, ", "a tile of one row, which has no step"),
    ("batchnorm", "batchnorm_backward", r"np\.empty\(\(3, channels", MORE_ROOM),
    ("depthwise", "_inference", r"tiles = \(rows \+ high( [-+] [01])?\) //", "one tile more, without rows"),
    ("depthwise", "inference_step", r"^(rows|high) = ", OTHER_CUT),
    (".*", ".*", r"if source\.pack\.size else 1|if copies > 1 else 1", MORE_ROOM),
    ("conv", "_forward|_inference", r"tile_rows\(", OTHER_CUT),
    ("conv", "_forward", r"last \+ 1\]", BY_ANOTHER),
    ("pooling", "window_of", r"shape\[1:4\], pads", "zip ends with the shorter"),
    ("residual", "_add_gradient", r"hi \+ 1\]", BY_ANOTHER),
    (
        "residual",
        "_sum",
        r"finished_tile\(a\.raw\[lo:hi\], a, scratch\[1\]",
        "scratch that is read before b needs it",
    ),
    (
        "product",
        "multiply_rows",
        r"^(if (adds|False|True)|pass$)",
        "before a prefetch: a hint to the memory, which reads nothing",
    ),
    ("product", "multiply_panel", r"^r \+= [02]$", "of the last loop, which has one row at most"),
    ("product", "pack_turned", r"range\(0, n, 7\)|low \+ 9", "some numbers are copied twice"),
    (".*", ".*", r"Strided\(.*, [02]\)", NOT_READ),
    ("conv", "gather_row", r"^elif False", "a shorter way for patches that lie inside altogether"),
    ("conv", "_backward", r"\(0, 1\)|\+ 1\]", BY_ANOTHER),
    (
        ".*",
        ".*_forward|unit_.*",
        r"^if (True|[a-z]+\.size or).*:$",
        "a batch of nothing, in which passes find nothing",
    ),
    (
        "inverted",
        "_inference|tile_of",
        r"side_u = .*wide \*|side_u = w2\.size \*|images > 0",
        "makes rows of e that nobody reads",
    ),
    ("inverted", "inference_step", r"\[second \+ 1 :", "room is larger than what is needed"),
    ("inverted", "inference_step", r"second \+ 1\]", "the taps' number says where their scratch ends"),
    ("pointwise", "sum_parts", r"else [02]\)$", "without padding the end is copied as the rest is"),
    ("squeeze_excite", "_backward|_gate_gradient|_scale", r"\+ 1\]|n \+ 2\) \* size\]", BY_ANOTHER),
    ("activations", "activate_by", r"i <= end", "the last vector is stored once more behind it"),
    ("conv", "gather_tile", r"r % rows == 0: → if True", "a row is found again where the last one was known"),
    ("conv", "_backward", r"if dx\.size: → if True", "a dx without pixels"),
    ("dense", "widened", r"max\(n - size, 1\)", MORE_ROOM),
    ("dense", "is_narrow", r"max\(w\.shape\)", "the other way to the same sums"),
    ("depthwise", "_backward", r"PIXELS or done == last \* rows: → if True", OTHER_CUT),
    ("folding", "pack_scaled", r"prefetch_tile|^one = ", "a hint to the memory, which reads nothing"),
    ("inverted", "_inference", r"ending2 = .*x\[:1\]", NOT_READ),
    ("inverted", "inference_step", r"room_of\(project\) \+ 1\]", MORE_ROOM),
    ("maps", "tile_height", r"p // [68]", OTHER_CUT),
    ("moments", "add_moments", r"^centre\[c\] \+= ", "sums around another centre: the same but for rounding"),
    ("pointwise", "room_of", r"(max\(filters, 0|min\(filters, 1)\)", "no layer is without filters"),
    ("pointwise", "_inference", r"step - 0\)", "one tile more, without rows"),
    (
        "pooling",
        "max_backward",
        r"where.* → (if False:|.*<= h \* w)",
        "refuses a wrong argument, see test_kernels_pooling.py",
    ),
    ("residual", "_sum", r"\(3, step\)", MORE_ROOM),
]


def reason(fault):
    for pages, functions, line, why in SAME:
        if (
            re.fullmatch(pages, fault.page)
            and re.fullmatch(functions, fault.function)
            and re.search(line, f"{fault.before} → {fault.after}" if "→" in line else fault.after)
        ):
            return why
    return ""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=", ".join(PAGES))
    parser.add_argument("--faults", type=int, default=320, help="how many, shared out to the pages; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="another sample")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    options = parser.parse_args()
    unknown = set(options.pages) - set(PAGES)
    if unknown:
        parser.error(f"no such page: {', '.join(sorted(unknown))}")
    pages = options.pages or list(PAGES)
    every = {page: faults_of(page) for page in pages}
    total = sum(map(len, every.values()))
    chosen = []
    for page, faults in every.items():
        random.Random(f"{options.seed} {page}").shuffle(faults)
        share = -(-options.faults * len(faults) // total) if options.faults else len(faults)
        chosen += faults[:share]
    print(f"{len(chosen)} of {total} faults: {dict(collections.Counter(f.page for f in chosen))}", flush=True)
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    seconds = {}
    for page in pages:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        failed = run(None, PAGES[page])
        if failed:
            print(f"{page}: fails without a fault: {failed}")
            return 1
        seconds[page] = 5 + 3 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    counts, missed, began = collections.Counter(), [], time.monotonic()
    for fault in chosen:
        failed = run(fault, PAGES[fault.page], seconds[fault.page])
        known = reason(fault)
        kind = "caught" if failed else "same" if known else "SURVIVED"
        counts[kind] += 1
        if kind == "SURVIVED":
            missed.append(fault)
        print(f"{kind:8}  {fault}   [{failed or known or 'no check fails'}]", flush=True)
    print(f"{dict(counts)} in {time.monotonic() - began:.0f} s")
    for fault in missed:
        print(f"survived: {fault}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
