"""Threads by a container's share of the processors: control groups of both versions, as they lie in /proc and /sys."""

import numba
import pytest

from numnet import cores
from numnet.cli import arguments

V2 = "31 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 32 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def system(root, mount, group, files):
    """Files of a Linux below ``root``: how the groups are mounted, which one is ours, and what they say."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "mountinfo").write_text(OTHERS + mount)
    (root / "proc" / "self" / "cgroup").write_text("4:memory:/elsewhere\n" + group + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1(time):
    return {
        f"cpu,cpuacct/cpu.cfs_{name}_us": value for name, value in (("quota", time), ("period", "100000"))
    }


@pytest.mark.parametrize(
    ("mount", "group", "files", "wanted"),
    [
        (V2.format(top="/"), "0::/", {"cpu.max": "150000 100000"}, 1.5),  # a container with a namespace of its own
        (V2.format(top="/"), "0::/", {"cpu.max": "max 100000"}, None),
        (V2.format(top="/"), "0::/", {}, None),  # the machine itself
        (V2.format(top="/"), "0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),  # the group around
        (V2.format(top="/"), "0::/a/b", {"a/b/cpu.max": "200000 50000", "a/cpu.max": "100000 100000"}, 1),
        (V2.format(top="/docker/c0"), "0::/docker/c0", {"cpu.max": "50000 100000"}, 0.5),
        (V2.format(top="/"), "0::/../other", {"cpu.max": "300000 100000"}, 3),
        (V1.format(top="/"), "5:cpu,cpuacct:/", v1("250000"), 2.5),
        (V1.format(top="/"), "5:cpu,cpuacct:/", v1("-1"), None),
        (V1.format(top="/docker/c0"), "5:cpu,cpuacct:/docker/c0", v1("800000"), 8),
        (V2.format(top="/").replace("cgroup rw", "a\\040b rw"), "0::/", {"../a b/cpu.max": "300000 100000"}, 3),
        (V2.format(top="/"), "0::/", {"cpu.max": "nonsense"}, None),
        ("short - cgroup2\n", "0::/", {"cpu.max": "100000 100000"}, None),
    ],
)  # fmt: skip
def test_quota(tmp_path, monkeypatch, mount, group, files, wanted):
    root = system(tmp_path, mount, group, files)
    monkeypatch.setattr(cores, "affinity", lambda: 6)
    assert cores.quota(root) == wanted
    assert cores.available(root) == {None: 6, 1.5: 2, 0.5: 1, 2.5: 3, 8: 6}.get(wanted, wanted)


def test_no_linux(tmp_path):
    assert cores.quota(tmp_path) is None and cores.available(tmp_path) == cores.affinity() >= 1


@pytest.fixture
def three(monkeypatch):
    """Numba with three threads at most, of which nothing is started; gives what is set."""
    state = {"now": 3}
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    monkeypatch.setattr(numba, "get_num_threads", lambda: state["now"])
    monkeypatch.setattr(numba, "set_num_threads", lambda n: state.update(now=n))
    return state


def test_commands_keep_to_the_quota(three, monkeypatch):
    monkeypatch.setattr(cores, "quota", lambda root="/": 1.2)
    monkeypatch.setattr(cores, "affinity", lambda: 64)
    arguments.set_threads(None)
    assert three["now"] == 2
    arguments.set_threads(3)  # who names a number gets it
    assert three["now"] == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    arguments.set_threads(None)
    assert three["now"] == 3
    monkeypatch.setattr(cores, "quota", lambda root="/": None)
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    arguments.set_threads(None)
    assert three["now"] == 3


def test_a_training_keeps_to_the_quota_and_gives_the_threads_back(three, monkeypatch):
    monkeypatch.setattr(cores, "quota", lambda root="/": 2)
    monkeypatch.setattr(cores, "affinity", lambda: 64)
    with cores.within_quota():
        assert three["now"] == 2
    assert three["now"] == 3
    three["now"] = 1  # chosen by the user
    with cores.within_quota():
        assert three["now"] == 1
    assert three["now"] == 1


@pytest.mark.parametrize("text", ["0", "-2", "", "two"])
def test_a_variable_that_is_no_number_of_threads_is_left_out_and_said(monkeypatch, capsys, text):
    monkeypatch.setenv("NUMBA_NUM_THREADS", text)
    cores.leave_out()
    assert "NUMBA_NUM_THREADS" not in cores.os.environ
    said = f"numnet: NUMBA_NUM_THREADS is {text!r}, expected a number of threads from 1 on: it is left out\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    cores.leave_out()
    assert cores.os.environ["NUMBA_NUM_THREADS"] == "3" and not capsys.readouterr().err


def test_numnet_is_imported_where_numba_alone_is_not(tmp_path, run_python):
    script = tmp_path / "zero.py"
    script.write_text("import numnet, numba\nprint(numba.config.NUMBA_NUM_THREADS >= 1)\n")
    assert run_python(script, env={"NUMBA_NUM_THREADS": "0"}) == "True\n"
