"""Two machines out of one: two ranks in network and UTS namespaces of their own, on a link that is slow on purpose.

    python tests/long/two_hosts.py [--rate MBIT] [--delay MS] [--model M --width W --batch B]     (Linux, as root)

Each host has its own name, its own network and nothing else to reach the other by than the link: shared memory is
switched off in MPICH, and a script takes ssh's place that enters the other host's namespaces. ``tc … tbf`` limits the
rate in both directions; a delay is netem's where the kernel has it, else that of a small relay between two TUN
devices. It shows that

* the ranks are on hosts of different names, and end with the same weights;
* the interfaces' counters rise by the bytes of the gradients, which therefore crossed the link;
* a step takes as long as ``numnet.parallel.scaling`` says, within 20 %.

Exit code 0 if all three hold. A line of JSON on standard output has the figures.
"""

import argparse
import contextlib
import hashlib
import json
import os
import select
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

# Address: (namespace, name)
HOSTS = {"10.77.0.1": ("numnet-a", "host-a"), "10.77.0.2": ("numnet-b", "host-b")}
DEVICE = "link0"
STEPS = 20
OWN = "mount -t sysfs sysfs /sys &&"  # or /sys would list the machine's network devices, and MPI look for them there
TUN_MTU = 32000  # large packets: the relay is Python
MPIEXEC = Path(sys.executable).parent / "mpiexec"


def do(*words, check=True):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{shlex.join(map(str, words))}: {done.stderr.strip() or done.returncode}")
    return done


def inside(space, *words, check=True):
    return do("ip", "netns", "exec", space, *words, check=check)


# ------------------------------------------------------------------------------------------- the link


def has_netem() -> bool:
    """Whether this kernel can delay packets by itself."""
    do("ip", "link", "add", "numnet-x", "type", "dummy", check=False)
    found = do("tc", "qdisc", "add", "dev", "numnet-x", "root", "netem", "delay", "1ms", check=False)
    do("ip", "link", "del", "numnet-x", check=False)
    return found.returncode == 0


@contextlib.contextmanager
def two_hosts(rate, delay):
    """Both namespaces and the link between them; ``rate`` in Mbit/s, ``delay`` in ms one way."""
    relay = None
    by_relay = delay > 0 and not has_netem()
    try:
        for space, _ in HOSTS.values():
            do("ip", "netns", "add", space)
            inside(space, "ip", "link", "set", "lo", "up")
        if by_relay:
            relay = start_relay(delay)
        else:
            (a, _), (b, _) = HOSTS.values()
            do("ip", "link", "add", DEVICE, "netns", a, "type", "veth", "peer", "name", DEVICE, "netns", b)
        for address, (space, _) in HOSTS.items():
            inside(space, "ip", "addr", "add", f"{address}/24", "dev", DEVICE)
            inside(space, "ip", "link", "set", DEVICE, "up")
            # What may pass at once: 4 ms of the rate, two packets at least
            burst = max(64_000, int(rate * 1e6 / 8 / 250))
            limit = ("tbf", "rate", f"{rate}mbit", "burst", burst, "limit", 4_000_000)
            inside(space, "tc", "qdisc", "add", "dev", DEVICE, "root", "handle", "1:", *limit)
            if delay and not by_relay:
                inside(
                    space,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    DEVICE,
                    "parent",
                    "1:1",
                    "netem",
                    "delay",
                    f"{delay}ms",
                )
        yield "TUN relay" if by_relay else "netem" if delay else "veth"
    finally:
        if relay is not None:
            relay.kill()
            relay.wait()
        for space, _ in HOSTS.values():
            do("ip", "netns", "del", space, check=False)


def start_relay(delay):
    """The relay as a process of its own; returns when both of its devices are there."""
    words = [sys.executable, __file__, "--relay", str(delay)]
    relay = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    if not relay.stdout.readline().startswith("ready"):
        raise SystemExit("the TUN relay did not start")
    return relay


def relay(delay):
    """Packets from each of two TUN devices to the other, ``delay`` ms later."""
    import ctypes
    import fcntl

    # It sleeps most of the time, and must not queue behind ranks that poll
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    libc, lines = ctypes.CDLL(None, use_errno=True), []
    for space, _ in HOSTS.values():
        with open(f"/run/netns/{space}") as handle:
            if libc.setns(handle.fileno(), 0x40000000):  # CLONE_NEWNET: a TUN device belongs where it is made
                raise OSError(ctypes.get_errno(), f"cannot enter {space}")
        line = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        # TUNSETIFF: TUN, no header
        fcntl.ioctl(line, 0x400454CA, struct.pack("16sH22x", DEVICE.encode(), 0x1001))
        do("ip", "link", "set", DEVICE, "mtu", TUN_MTU)
        do("ip", "link", "set", DEVICE, "txqueuelen", 2000)
        lines.append(line)
    print("ready", flush=True)
    waiting = {lines[0]: deque(), lines[1]: deque()}  # (time to send, packet) for each device
    other = {lines[0]: lines[1], lines[1]: lines[0]}
    while True:
        now = time.monotonic()
        first = min((queue[0][0] for queue in waiting.values() if queue), default=now + 1)
        ready, _, _ = select.select(lines, [], [], max(0.0, first - now))
        for line in ready:
            with contextlib.suppress(BlockingIOError, OSError):
                while True:
                    packet = os.read(line, 65536)
                    waiting[other[line]].append((time.monotonic() + delay / 1000, packet))
        now = time.monotonic()
        for line, queue in waiting.items():
            while queue and queue[0][0] <= now:
                with contextlib.suppress(OSError):
                    os.write(line, queue.popleft()[1])


# ------------------------------------------------------------------------------------------- a rank


def counters() -> dict:
    """Bytes that this host's interfaces received and sent."""
    found = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        numbers = [int(number) for number in numbers.split()]
        found[name.strip()] = {"received": numbers[0], "sent": numbers[8]}
    return found


def rank(options):
    """What each rank does: measure the parts, predict, measure the whole, look at the counters."""
    import numnet
    from numnet import parallel
    from numnet.parallel import scaling

    with parallel.team(overlap=not options.no_overlap) as team:
        net = numnet.build(
            options.model, width=options.width, resolution=options.resolution, classes=10, seed=1
        )
        share = options.batch // team.size
        computes = team.gather(scaling.measure(net, [share]))
        compute = max(computes, key=lambda compute: compute.seconds(share))
        link = scaling.measure_link(team.comm)
        predicted = scaling.step(compute, team.size, share, link, overlap=not options.no_overlap)
        team.comm.Barrier()
        before = counters()[DEVICE]
        seconds = scaling.measure_step(team, net, options.batch, STEPS)
        team.comm.Barrier()
        after = counters()[DEVICE]
        digest = hashlib.sha256(net.flat.tobytes()).hexdigest()
        summed = hashlib.sha256(net.flat_grad.tobytes()).hexdigest()
        steps = team.report()["steps"]  # fewer than STEPS on a slow link, where measuring ends after 3 s
        own = {
            "host": socket.gethostname(),
            "sent": (after["sent"] - before["sent"]) / steps,
            "received": (after["received"] - before["received"]) / steps,
            "weights": digest,
            "gradient": summed,
        }
        everyone = team.gather(own)
        if team.leads:
            nominal = link._replace(latency=link.latency, bandwidth=options.rate * 1e6 / 8)
            found = {
                "link": link._asdict(),
                "predicted": predicted,
                "predicted_at_the_nominal_rate": scaling.step(compute, team.size, share, nominal)["step"],
                "measured": seconds,
                "gradient_bytes": net.flat.nbytes,
                "exchange": team.report(),
                "ranks": everyone,
            }
            Path(options.out).write_text(json.dumps(found))


# ------------------------------------------------------------------------------------------- the job


def launcher(folder) -> Path:
    """A script in place of ssh: enters the namespaces of the host that it is given, and runs the rest there."""
    cases = "\n".join(
        f"  {address}) space={space}; name={name};;" for address, (space, name) in HOSTS.items()
    )
    path = folder / "not-ssh"
    path.write_text(
        '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nhost=$1\nshift\n'
        f'case $host in\n{cases}\n  *) echo "no host $host" >&2; exit 1;;\nesac\n'
        f"OWN={shlex.quote(OWN)}\n"
        'exec nsenter --net=/run/netns/$space unshare --uts --mount sh -c "$OWN hostname $name && exec $*"\n'
    )
    path.chmod(0o755)
    return path


def job(options) -> dict:
    """Run the ranks and return what rank 0 found."""
    with tempfile.TemporaryDirectory() as folder, two_hosts(options.rate, options.delay) as kind:
        folder = Path(folder)
        out = folder / "found.json"
        words = [__file__, "--rank", "--out", str(out)]
        for name in ("rate", "delay", "model", "width", "resolution", "batch"):
            words += [f"--{name}", str(getattr(options, name))]
        words += ["--no-overlap"] if options.no_overlap else []
        env = {
            "NUMBA_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
            "MPIR_CVAR_NOLOCAL": "1",  # no shared memory, even if the hosts' names were one
            "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": DEVICE,
            "FI_PROVIDER": "tcp", "FI_TCP_IFACE": DEVICE, "HYDRA_IFACE": DEVICE,
        }  # fmt: skip
        hydra = [str(MPIEXEC if MPIEXEC.exists() else shutil.which("mpiexec")), "-launcher", "ssh"]
        hydra += ["-launcher-exec", str(launcher(folder)), "-hosts", ",".join(HOSTS), "-n", "2", "-ppn", "1"]
        hydra += ["-iface", DEVICE, "-localhost", next(iter(HOSTS))]
        space, name = HOSTS[next(iter(HOSTS))]
        command = shlex.join([*hydra, sys.executable, *words])
        enter = [
            "nsenter",
            f"--net=/run/netns/{space}",
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-c",
            f"{OWN} hostname {name} && exec {command}",
        ]
        done = subprocess.run(enter, env={**os.environ, **env}, timeout=600, check=False)
        if done.returncode:
            raise SystemExit(f"mpiexec ended with {done.returncode}")
        return {
            "kind": kind,
            "rate_mbit": options.rate,
            "delay_ms": options.delay,
            **json.loads(out.read_text()),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=400, help="Mbit/s in each direction (400)")
    parser.add_argument("--delay", type=float, default=0, help="ms one way (0)")
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--no-overlap", action="store_true", help="send when backward is through")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--relay", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay is not None:
        relay(options.relay)
    if options.rank:
        rank(options)
        return 0
    found = job(options)
    print(json.dumps(found))
    hosts = [one["host"] for one in found["ranks"]]
    error = found["predicted"]["step"] / found["measured"] - 1
    ratios = [one["sent"] / found["gradient_bytes"] for one in found["ranks"]]
    checks = {
        f"hosts {' and '.join(hosts)}, each with a name of its own": len(set(hosts)) == 2,
        "equal weights and gradients": len({one["weights"] + one["gradient"] for one in found["ranks"]}) == 1,
        f"sent over the link a step: {ratios[0]:.2f} and {ratios[1]:.2f} times the gradient's bytes": all(
            0.95 < ratio < 1.5 for ratio in ratios
        ),
        f"a step: predicted {1e3 * found['predicted']['step']:.1f} ms, measured {1e3 * found['measured']:.1f} ms "
        f"({100 * error:+.0f} %)": abs(error) < 0.2,
    }
    for text, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {text}", file=sys.stderr)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
