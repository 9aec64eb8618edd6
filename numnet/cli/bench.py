"""``numnet bench``: which workloads, which sides, how long; ``numnet.bench`` does the measuring."""

from dataclasses import replace

from numnet.bench import machine, workloads
from numnet.cli.arguments import (
    choice,
    columns,
    count,
    described,
    nearest,
    number,
    print_json,
    require_figure,
    say,
)
from numnet.errors import NumnetError


def bench_arguments(parser):
    parser.epilog = "workloads: " + ", ".join(workloads.WORKLOADS)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD",
                        help="names or patterns like 'infer-*-b1', or all (the four of MobileNetV1)")  # fmt: skip
    parser.add_argument("--threads", type=count(), metavar="T", help="for every side (all cores)")
    parser.add_argument(
        "--rounds", type=count(), default=3, metavar="R", help="how often each side has its turn (3)"
    )
    parser.add_argument(
        "--seconds",
        type=number(above=0),
        default=2.0,
        metavar="S",
        help="of each turn; of kernels of each shape, forward and backward (2)",
    )
    parser.add_argument(
        "--sides", metavar="A,B", help="numnet, pytorch, onnxruntime, torch.compile (the first three)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument(
        "--layers", action="store_true", help="also the time by kind of layer, forward and backward"
    )
    parser.add_argument("--sweep", type=choice(*workloads.SWEEPS), metavar="WHAT",
                        help="vary width, resolution, batch or threads")  # fmt: skip
    parser.add_argument("--values", metavar="V,V", help="for --sweep")
    parser.add_argument(
        "--width", type=number(above=0, most=8), metavar="W", help="instead of the workload's own"
    )
    parser.add_argument("--resolution", type=count(), metavar="R", help="instead of the workload's own")
    parser.add_argument("--batch-size", type=count(), metavar="B", help="instead of the workload's own")
    about = "a roofline; with --sweep its curves, or with --layers too the time by kind of layer (.png, .pdf, .svg)"
    parser.add_argument("--plot", metavar="FILE", help=about)
    parser.add_argument("--json", action="store_true", help="as JSON")


def bench(arguments):
    from numnet.bench import report
    from numnet.bench.comparison import compare

    if arguments.plot:
        require_figure(arguments.plot, "--plot")
    threads = arguments.threads or machine.cores()
    sides = _sides(arguments)
    chosen = [_changed(workload, arguments) for workload in workloads.find(arguments.workloads)]
    if arguments.values and not arguments.sweep:
        raise NumnetError("--values: needs --sweep as well")
    if arguments.sweep:
        if any(workload.mode in workloads.KERNELS for workload in chosen):
            raise NumnetError("--sweep: expected workloads of training or inference, not of kernels alone")
        values = _values(arguments)
        chosen = [
            w for base in chosen for w in workloads.sweep(base, arguments.sweep, values, machine.cores())
        ]
    for workload in chosen:
        described(**workload.net())  # a width or resolution that no net can have is said before hours pass
    facts = compare(
        chosen, sides=sides, threads=threads, rounds=arguments.rounds, seconds=arguments.seconds,
        layers=arguments.layers, say=say,
    )  # fmt: skip
    if arguments.json:
        print_json(facts)
    else:
        print(columns(report.lines(facts), right=report.SIDE_COLUMNS))
        for workload in facts["workloads"]:
            for key, make in (("parts", report.part_lines), ("layers", report.layer_lines)):
                if key in workload:
                    print("\n" + columns(make(workload), right=range(1, 99)))
        print("\n" + "\n".join(report.notes(facts)))
    if arguments.plot:
        report.plot(facts, arguments.sweep, arguments.plot)


def _sides(arguments) -> list[str]:
    from numnet.bench.sides import SIDES

    names = arguments.sides.split(",") if arguments.sides else ["numnet", "pytorch", "onnxruntime"]
    if arguments.compile and "torch.compile" not in names:
        names.append("torch.compile")
    for name in names:
        if name not in SIDES:
            raise NumnetError(
                f"--sides: expected some of {', '.join(SIDES)}, got {name!r}{nearest(name, SIDES)}"
            )
    return list(dict.fromkeys(names))


def _changed(workload, arguments):
    """The workload with the sizes that were asked for, and a name that says so."""
    for what, value in (
        ("width", arguments.width),
        ("resolution", arguments.resolution),
        ("batch", arguments.batch_size),
    ):
        if value is not None and value != getattr(workload, what):
            workload = workload.vary(what, value)
    return replace(workload, threads=arguments.threads or workload.threads)


def _values(arguments):
    if arguments.values is None:
        return None
    kind = number(above=0, most=8) if arguments.sweep == "width" else count()
    values = []
    for text in arguments.values.split(","):
        try:
            values.append(kind(text.strip()))
        except Exception as error:
            raise NumnetError(f"--values: {error}") from None
    return values
