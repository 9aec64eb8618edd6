"""Training on a real disk that fills up, and in a real folder that is read-only.

    python tests/long/small_disk.py --fills 40        Linux; a minute

A file system of one megabyte in memory (tmpfs), mounted where nobody else sees it (``unshare``; as root, or where users
may have name spaces of their own). At a random step something else fills it up to a random number of pages. The training
must stop with one line that names a file and "No space left on device", or go on if it has enough; what is left must
load; and once there is room again a resume must end in the bits of an undisturbed run. Then the same run on a read-only
mount: it must refuse in one line, and what reads it (``info``, ``eval``) must work. The last line is JSON.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cli_tools
import training_fakes as fakes
from kill_anywhere import SETTINGS, contents

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.training.loop import Callback, fit

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def train(out, *callbacks):
    """As kill_anywhere does: a checkpoint after every step."""
    data = fakes.make_data(train=120, validation=40, test=40)
    resume = (out / "last.safetensors").is_file()
    fit(fakes.make_net(), data, out=out, resume=resume, callbacks=callbacks, **SETTINGS)


class Ballast(Callback):
    """Fills the disk at a step, up to so many pages."""

    def __init__(self, file, step, pages):
        self.file, self.step, self.pages = file, step, pages

    def on_step(self, run, loss):
        if run.step == self.step:
            self.fill()

    def fill(self):
        with open(self.file, "wb", buffering=0) as file:
            try:
                while file.write(bytes(PAGE)):
                    pass
            except OSError:
                file.truncate(max(0, file.tell() - self.pages * PAGE))


def fill_up(disk, chance, wanted):
    """One run on a disk that fills up: what became of it."""
    out, step, pages = disk / "run", chance.randrange(12), chance.choice((0, 0, 1, 2, 5, 10, 20, 30, 40))
    ballast = Ballast(disk / "ballast", step, pages)
    if step == 0:
        ballast.fill()
    try:
        train(out, ballast)
        became = "had room"
    except NumnetError as error:
        assert "\n" not in str(error) and "No space left on device" in str(error), error
        assert str(out) in str(error), error
        became = "stopped"
    assert not [path for path in out.glob(".*")], "debris"
    if (out / "last.safetensors").exists():
        steps = checkpoint.read(out / "last.safetensors")[1]["training"]["steps"]
        assert became == "had room" or max(0, step - 1) <= steps <= 12, (step, steps)
    else:
        assert step == 0, "the last good checkpoint is gone"
        became = "stopped before the first checkpoint"
    (disk / "ballast").unlink()
    if became != "had room":
        train(out)
    assert contents(out) == wanted, "other bits than the undisturbed run's"
    shutil.rmtree(out)
    return became


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "numnet", *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stderr


def read_only(folder):
    """The command line on a mount that may only be read."""
    photos, writable, mount = cli_tools.write_images(folder / "photos"), folder / "writable", folder / "mount"
    code, errors = command(
        "train", photos, *cli_tools.TINY, "--epochs", 1, "--out", writable / "run", "--quiet"
    )
    assert code == 0, errors
    (writable / "run" / "result.json").unlink()  # as if it had been stopped
    mount.mkdir()
    subprocess.run(["mount", "--bind", writable, mount], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", mount], check=True)
    before = {path.name: path.read_bytes() for path in (mount / "run").iterdir()}
    for arguments in (["train", photos, *cli_tools.TINY, "--epochs", 1, "--out", mount / "new"],
                      ["train", "--resume", mount / "run"]):  # fmt: skip
        code, errors = command(*arguments, "--quiet")
        errors = errors.replace("reading the data …\n", "")  # said where that takes long
        assert code == 2 and errors.count("\n") == 1 and "Read-only file system" in errors, errors
    for arguments in (["info", mount / "run"], ["eval", mount / "run", photos]):
        code, errors = command(*arguments)
        assert code == 0, errors
    assert before == {path.name: path.read_bytes() for path in (mount / "run").iterdir()}


def inside(arguments):
    """In a name space of its own: every mount is gone with this process."""
    began, became, chance = time.monotonic(), {}, random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        train(folder / "undisturbed")
        wanted, disk = contents(folder / "undisturbed"), folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
        try:
            for _ in range(arguments.fills):
                what = fill_up(disk, chance, wanted)
                became[what] = became.get(what, 0) + 1
        finally:
            subprocess.run(["umount", disk], check=True)
        try:
            read_only(folder)
        finally:
            subprocess.run(["umount", folder / "mount"], stderr=subprocess.DEVNULL)
    print(json.dumps({"fills": arguments.fills, **became, "read-only": "refused in one line", "different": 0,
                      "seconds": round(time.monotonic() - began, 1)}))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments)
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*own, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        print("mounting is not permitted here: nothing was tested", file=sys.stderr)
        return 1
    return subprocess.run([*own, sys.executable, __file__, "--inside", *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())
