"""``numnet scale``: what more ranks would bring. ``mpiexec -n 2 numnet scale …`` measures the link, too."""

from numnet import parallel
from numnet.cli.arguments import (
    add_model_options,
    add_threads,
    choice,
    columns,
    count,
    described,
    model_options,
    number,
    print_json,
    require_figure,
    say,
    set_threads,
)
from numnet.models import build

LATENCY, BANDWIDTH = 30e-6, 1.25e9  # if neither given nor measured: 10 Gbit/s Ethernet
MEASURED = 64  # images at most that compute is measured with; more are on the line through fewer


def scale_arguments(parser):
    parser.epilog = (
        "Without mpiexec the link is assumed as given. With mpiexec the link between the ranks is measured."
    )
    parser.add_argument("model", metavar="MODEL", help="one of those that `numnet models` lists")
    parser.add_argument("--batch", type=count(), default=128, metavar="B", help="images in a step (128)")
    parser.add_argument(
        "--ranks", type=count(), default=1024, metavar="R", help="largest number of ranks (1,024)"
    )
    parser.add_argument(
        "--latency", type=number(least=0), metavar="µs", help="latency of a message, in microseconds"
    )
    parser.add_argument(
        "--bandwidth", type=number(above=0), metavar="GB/s", help="bandwidth of a link, in 10⁹ bytes a second"
    )
    parser.add_argument(
        "--hidden",
        type=number(least=0, most=1),
        metavar="PART",
        help="part of the communication that overlaps with computing",
    )
    parser.add_argument(
        "--algorithm",
        type=choice("best", "ring", "tree"),
        default="best",
        metavar="ring|tree|best",
        help="(best)",
    )
    add_threads(parser)
    add_model_options(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw speed-up and efficiency (.png, .pdf, .svg)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def scale(arguments):
    if arguments.plot:
        require_figure(arguments.plot, "--plot")
    options = model_options(arguments)
    described(arguments.model, **options)
    with parallel.team() as team:
        set_threads(arguments.threads)
        found = _measured(arguments, options, team)
        if not team.leads:
            return
    if arguments.json:
        print_json(found)
    else:
        _print(found)
    if arguments.plot:
        from numnet import plotting

        plotting.scaling(found["rows"], arguments.plot)


def _measured(arguments, options, team) -> dict:
    import numba

    from numnet.parallel import scaling

    net = build(arguments.model, **options)
    if team.leads:
        say("measuring …")
    many = min(arguments.batch, MEASURED)
    shares = {max(1, many // 8), max(1, many // 2), many, min(many, max(1, arguments.batch // team.size))}
    compute = max(team.gather(scaling.measure(net, sorted(shares))), key=lambda c: c.seconds(many))
    measured = scaling.measure_link(team.comm) if team.size > 1 else None
    link = measured or scaling.Link(LATENCY, BANDWIDTH)
    if arguments.latency is not None:
        link = link._replace(latency=1e-6 * arguments.latency)
    if arguments.bandwidth is not None:
        link = link._replace(bandwidth=1e9 * arguments.bandwidth)
    if arguments.hidden is not None:
        link = link._replace(hidden=arguments.hidden)
    found = {
        "model": arguments.model,
        "batch": arguments.batch,
        "threads": numba.get_num_threads(),
        "gradient_bytes": net.flat.nbytes,
        "bucket_bytes": compute.buckets,
        "measured_steps": {str(images): seconds for images, seconds in compute.measured.items()},
        "link": link._asdict(),
        "algorithm": arguments.algorithm,
        "layers": [stage._asdict() for stage in (compute.forward, *compute.backward, compute.update)],
        "rows": scaling.curves(compute, arguments.batch, link, arguments.ranks, arguments.algorithm),
        "assumptions": scaling.assumptions(
            link,
            arguments.algorithm,
            measured is not None and (arguments.latency, arguments.bandwidth) == (None, None),
        ),
    }
    if team.size > 1 and arguments.batch >= team.size:
        seconds = scaling.measure_step(team, net, arguments.batch)
        share = -(-arguments.batch // team.size)
        predicted = scaling.step(compute, team.size, share, link, arguments.algorithm)
        found["check"] = {
            "ranks": team.size,
            "measured": seconds,
            "predicted": predicted["step"],
            **team.report(),
        }
    return found


def _print(found):
    megabytes = found["gradient_bytes"] / 1e6
    steps = ", ".join(f"{1e3 * t:,.1f} ms with {n} images" for n, t in found["measured_steps"].items())
    print(f"{found['model']}, batch {found['batch']}, {found['threads']} threads a rank")
    print(f"a step of one rank: {steps}")
    print(f"gradients: {megabytes:,.2f} MB a step in {len(found['bucket_bytes'])} buckets\n")
    lines = [("ranks", "images", "compute", "all-reduce", "exposed", "step", "speed-up", "efficiency",
              f"{found['batch']} each: step", "efficiency"), None]  # fmt: skip
    for row in found["rows"]:
        shared = ("",) * 7
        if "step" in row:
            times = (f"{1e3 * row[key]:,.2f} ms" for key in ("compute", "communication", "exposed", "step"))
            part = f"{100 * row['efficiency']:.0f} %"
            shared = (f"{row['images']:g}", *times, f"{row['speedup']:.2f}", part)
        each = (f"{1e3 * row['each_step']:,.2f} ms", f"{100 * row['each_efficiency']:.0f} %")
        lines.append((f"{row['ranks']:,}", *shared, *each))
    print(columns(lines, right=range(10)))
    if "check" in found:
        check = found["check"]
        error = check["predicted"] / check["measured"] - 1
        print(
            f"\nmeasured on {check['ranks']} ranks: {1e3 * check['measured']:.2f} ms a step, "
            f"predicted {1e3 * check['predicted']:.2f} ms ({100 * error:+.0f} %)"
        )
    print("\nassumed:")
    for line in found["assumptions"]:
        print(f"  {line}")
