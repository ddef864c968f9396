"""Runs that are killed, run out of disk space or have damaged files: the promises of gan_cli/training/README.md.

``make faults`` runs these tests and prints the rows of the fault table of that page.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, TOY, command, environment
from PIL import Image
from test_engine import EVERYTHING
from test_run import manifest, records, status

from gan_cli.cli.report import main as report
from gan_cli.errors import RunFailed
from gan_cli.storage import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.faults]
OPTIMISED = {"XLA_FLAGS": ""}  # long runs, for which optimisation pays off


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(**OPTIMISED), **more)


def newest(run: Path) -> int:
    return max(checkpoints.steps(checkpoints.newest_folder(run)), default=0)


# Frequent saving, drawing and logging, so that kills interrupt each of them. All stateful features are on, and with
# three batches of 900 per step, epochs of 4,500 digits end within steps.
KILLS, LAST = 50, 320
KILLED = [
    *EVERYTHING,
    f"train.steps={LAST}",
    "train.steps_per_call=2",
    "train.log_every=2",
    "train.sample_every=4",
    "train.checkpoint_every=2",
    "resume=auto",
]


def test_killed_anywhere_and_resumed_gives_the_same_bits(figure):
    """After SIGKILL at 50 random moments, nothing is lost and the final state is bit-identical."""
    whole, killed = Path("outputs/whole"), Path("outputs/killed")
    done = call(*KILLED, "name=whole")
    assert done.returncode == 0, done.stderr
    rng = random.Random(0)
    hit: Counter[str] = Counter()
    lost = 0
    while True:
        process = subprocess.Popen(
            command(*KILLED, "name=killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(**OPTIMISED),
        )
        # Most kills wait for a new checkpoint; the others come at any time, including the start-up.
        began, seen = time.monotonic(), newest(killed)
        if rng.random() < 0.8:
            while process.poll() is None and newest(killed) <= seen and time.monotonic() - began < 60:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(rng.uniform(0.5, 5))
        if process.poll() is None and hit.total() < KILLS:
            process.send_signal(signal.SIGKILL)
            process.wait()
            saving = any(checkpoints.newest_folder(killed).glob("*orbax-checkpoint-tmp*"))
            hit["saving" if saving else "training" if newest(killed) > seen else "before its first save"] += 1
            logged = [json.loads(line)["step"] for line in whole_lines(killed / "metrics.jsonl")]
            lost = max(lost, max(logged, default=0) - newest(killed))
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
    assert hit.total() == KILLS and len(hit) == 3, hit
    assert not (killed / "damaged").exists()
    assert manifest(killed, LAST) == manifest(whole, LAST)
    assert records(killed) == records(whole)
    for grid in (whole / "samples").glob("*.png"):
        # The files differ in their provenance marks alone, which name the run.
        np.testing.assert_array_equal(Image.open(killed / "samples" / grid.name), Image.open(grid))
    where = ", ".join(f"{count} {what}" for what, count in hit.most_common())
    figure(
        "SIGKILL at random moments", f"{KILLS} ({where}): final state bit-identical; at most {lost} steps repeated"
    )


def test_a_killed_private_run_charges_each_update_once(figure):
    """After SIGKILL at 8 random moments, state and ledger equal those of a whole run with the same key."""
    pytest.importorskip("dp_accounting")
    kills, last = 8, 120
    options = [
        *TINY, "dataset=ring", "estimator=private", "estimator.noise_multiplier=2", "sampler=poisson",
        "strategy.n_critic=2", f"train.steps={last}", "train.steps_per_call=2", "train.log_every=2",
        "train.checkpoint_every=2", "resume=auto", "logger=none",
    ]  # fmt: skip
    whole, killed = Path("outputs/whole"), Path("outputs/killed")
    rng, hit = random.Random(0), 0
    while True:
        process = subprocess.Popen(
            command(*options, "name=killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(**OPTIMISED),
        )
        began, seen = time.monotonic(), newest(killed)
        ready = (killed / "run.json").exists if not hit else lambda seen=seen: newest(killed) > seen
        while process.poll() is None and not ready() and time.monotonic() - began < 60:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None and hit < kills:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if not hit:  # the key is drawn, and nothing is repeated yet
                shutil.copytree(killed, whole)
            hit += 1
            told = [json.loads(line)["step"] for line in whole_lines(killed / "metrics.jsonl")]
            charged = json.loads((killed / "run.json").read_text())["privacy"]["steps"]
            assert charged >= 2 * max([newest(killed), *told])
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
    assert hit == kills
    done = call(*options, "name=whole")
    assert done.returncode == 0, done.stderr
    assert (whole / "private/noise.key").read_bytes() == (killed / "private/noise.key").read_bytes()
    assert manifest(killed, last) == manifest(whole, last)
    assert records(killed) == records(whole)
    ledgers = [json.loads((run / "run.json").read_text())["privacy"] for run in (killed, whole)]
    _, arrays = checkpoints.load_arrays(killed / "checkpoints")
    updates = {int(x) for name, x in arrays.items() if "discriminator" in name and name.endswith("count")}
    assert ledgers[0] == ledgers[1] and updates == {2 * last} == {ledgers[0]["steps"]}
    figure("SIGKILL of a private run", f"{kills}: final state bit-identical; each update is charged once")


def whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []


def test_a_damaged_checkpoint_is_never_restored(figure, tmp_path):
    """A random file of the newest checkpoint has a flipped bit, is truncated, or is missing."""
    rng = random.Random(0)
    states = {
        step: {"w": np.random.default_rng(step).normal(size=(40, 50)), "n": np.int32(step)} for step in (1, 2)
    }
    identity = checkpoints.Identity("x", None)
    for step, state in states.items():
        checkpoints.save(tmp_path / "run/checkpoints", step, state, identity, keep=2)
    outcomes: Counter[str] = Counter()
    trials = 200
    for i in range(trials):
        place = tmp_path / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "run", place)
        file = rng.choice(
            [p for p in sorted((place / "checkpoints/2").rglob("*")) if p.is_file() and p.stat().st_size]
        )
        content = bytearray(file.read_bytes())
        if i % 3 == 0:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif i % 3 == 1:
            del content[rng.randrange(len(content)) :]
        file.write_bytes(content)
        if i % 3 == 2:
            file.unlink()
        found = checkpoints.restore([(place, identity)], states[2])
        assert found is not None
        step, (restored,) = found
        state = restored.state
        same = [np.array_equal(state[name], states[step][name]) for name in state]
        assert all(same), file  # no undetected damage
        outcomes["set aside, the previous one restored" if step == 1 else "harmless: not part of the state"] += 1
        assert (step == 1) == (place / "damaged/2").is_dir()
    assert min(outcomes.values()) > 0 and outcomes.total() == trials
    figure(
        "Files of a checkpoint damaged",
        "; ".join(f"{n} {what}" for what, n in outcomes.most_common()) + "; 0 undetected",
    )


def test_damage_to_all_checkpoints_is_reported(tmp_path):
    state, identity = {"w": np.ones(5)}, checkpoints.Identity("x", None)
    checkpoints.save(tmp_path / "checkpoints", 1, state, identity, keep=1)
    shutil.rmtree(tmp_path / "checkpoints/1/state")
    with pytest.raises(RunFailed, match="All checkpoints stay where they are"):
        checkpoints.restore([(tmp_path, identity)], state)


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems, in a mount namespace that ends with the script."""
    run = ["unshare", "--mount", "--map-root-user", "sh", "-euc"]
    try:
        able = subprocess.run([*run, "mount -t tmpfs none /mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("cannot mount: needs util-linux (apt-get install util-linux) and user namespaces")
    return subprocess.run([*run, script], capture_output=True, text=True, env=environment(**OPTIMISED), timeout=300)


def shell(*arguments: str) -> str:
    return " ".join(f"'{argument}'" for argument in command(*arguments))


WITHOUT_OUTPUT = [*TOY, "train.checkpoint_every=0"]


def until_the_terminal_closes(*arguments: str) -> int:
    """Run a command on a terminal that is closed during training, as for a job under ``disown``."""
    ours, terminal = pty.openpty()
    ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    process = subprocess.Popen(
        [*ignoring, *command(*arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=environment(),
    )
    os.close(terminal)
    said = b""
    while b"steps/s" not in said:
        said += os.read(ours, 1000)
    os.close(ours)
    return process.wait(300)


def test_output_that_cannot_be_written_does_not_end_a_run(figure):
    ways = {"pipe": "| head -3; exit ${PIPESTATUS[0]}", "disk": ">/dev/full 2>&1", "closed": ">&- 2>&- <&-"}
    for name, redirection in ways.items():
        line = f"{shell(*WITHOUT_OUTPUT, f'name={name}')} {redirection}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment())
        assert done.returncode == 0 and "rror" not in done.stderr, (name, done.stderr)
    assert until_the_terminal_closes(*WITHOUT_OUTPUT, "train.steps=20000", "name=terminal") == 0
    for name in (*ways, "terminal"):
        facts = json.loads(Path(f"outputs/{name}/run.json").read_text())
        assert facts["status"] == "finished" and facts["checkpoint"] == facts["step"] == newest(
            Path("outputs", name)
        )
        assert "Traceback" not in Path(f"outputs/{name}/gan-train.log").read_text()
    figure("Output to a closed pipe, a full disk or a closed terminal", "exit 0, all steps trained and saved")


def test_a_streamed_file_that_vanishes(figure):
    Path("images").mkdir()
    for i in range(64):
        Image.new("RGB", (9, 9), (4 * i, 0, 0)).save(f"images/{i}.png")
    streamed = ["dataset=folder", "dataset.path=images", "dataset.resolution=8", "dataset.stream=true"]
    lasting = [*TINY, *streamed, "dataset.on_error=refuse", "train.steps=1000000", "train.checkpoint_every=0"]
    process = subprocess.Popen(
        command(*lasting, "logger=none", "name=run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    run = Path("outputs/run")
    while not whole_lines(run / "metrics.jsonl"):
        assert process.poll() is None
        time.sleep(0.05)
    Path("images/7.png").rename("7.png")
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2) and "7.png" in err and "Traceback" not in err, err
    facts, saved = json.loads((run / "run.json").read_text()), newest(run)
    assert facts["status"] == "failed" and facts["checkpoint"] == facts["step"] == saved > 0
    assert records(run)[-1]["step"] == saved
    Path("7.png").rename("images/7.png")
    done = call("resume=outputs/run", f"train.steps={saved + 4}")
    assert done.returncode == 0 and f"resumed   from step {saved}" in done.stdout
    figure("File of a streamed folder vanishes", "exit with one message; the last step is saved; resumes from it")


def test_a_path_with_a_pattern_and_checkpoints_that_are_deleted(figure, tmp_path):
    place = tmp_path / "q[1]"
    place.mkdir()
    run = place / "outputs/run"
    for arguments in ([*TINY, "train.keep=1", "name=run"], ["resume=outputs/run", "train.steps=12"]):
        done = call(*arguments, cwd=place)
        assert done.returncode == 0, done.stderr
    assert checkpoints.steps(checkpoints.newest_folder(run)) == [12] and not (run / "damaged").exists()
    sample = [sys.executable, "-m", "gan_cli.cli.sample", "outputs/run", "--out", "grid.png"]
    subprocess.run(sample, cwd=place, env=environment(), check=True, capture_output=True)
    figure("Directory `q[1]`, which Orbax reads as a pattern", "trains, resumes and samples")
    shutil.rmtree(checkpoints.newest_folder(run))
    kept = [run / "run.json", run / "metrics.jsonl"]
    before = [file.read_bytes() for file in kept]
    done = call("resume=outputs/run", cwd=place)
    assert done.returncode == 2 and "start again at step 0" in done.stderr
    assert [file.read_bytes() for file in kept] == before
    figure("All checkpoints deleted", "exit 2 and one message, nothing changed")


SAVES = [*TINY, "train.steps=200", "train.keep=100", "logger=none", "resume=auto", "name=run"]


def test_a_full_disk_ends_a_run_which_resumes_once_there_is_space(figure, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_a_namespace(
        f"mount -t tmpfs -o size=2m none {disk}; cd {disk}\n"
        f"{shell(*SAVES)} >{tmp_path}/said 2>&1 && exit 9 || echo $? >{tmp_path}/code\n"
        f"cp -a outputs/run {tmp_path}/full\n"
        f"mount -o remount,size=100m {disk}; {shell(*SAVES)} >/dev/null; cp -a outputs/run {tmp_path}/after"
    )
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text()
    assert (tmp_path / "code").read_text() == "1\n" and "Traceback" not in said, said
    assert re.search("No space left|could not be written", said), said
    whole = call(*SAVES)
    assert whole.returncode == 0
    kept = checkpoints.steps(checkpoints.newest_folder(tmp_path / "full"))
    for step in kept:
        assert manifest(tmp_path / "full", step) == manifest(Path("outputs/run"), step)
    assert manifest(tmp_path / "after", 200) == manifest(Path("outputs/run"), 200)
    assert records(tmp_path / "after") == records(Path("outputs/run"))
    figure(
        "Disk full", f"exit 1 and one message; the {len(kept)} earlier checkpoints intact; resumes bit-identically"
    )


def test_a_read_only_directory_is_refused_and_unchanged(figure, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    short = [*TINY, "logger=none", "resume=auto", "name=run"]
    done = in_a_namespace(
        f"mount -t tmpfs none {disk}; cd {disk}; {shell(*short)} >/dev/null\n"
        "find . -type f | sort | xargs sha256sum >../a\n"
        f"mount -o remount,ro {disk}\n"
        f"{shell(*short, 'train.steps=16')} >../said 2>&1 && exit 9 || echo $? >../code\n"
        f"{shell(*TINY)} >>../said 2>&1 && exit 9 || echo $? >>../code\n"
        "find . -type f | sort | xargs sha256sum >../b"
    )
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text()
    assert (
        (tmp_path / "code").read_text() == "1\n2\n" and "Traceback" not in said and len(said.splitlines()) < 10
    ), said
    assert said.count("Read-only file system") == 1 and "not writable" in said
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    figure("Read-only directory", "exit 1 (resumed run) or 2 (new run) and one message, nothing changed")


def test_a_second_process_in_a_directory_is_refused(figure):
    first = subprocess.Popen(
        command(*TINY, "train.steps=4000000", "name=run", "train.checkpoint_every=4000"),
        stdout=subprocess.DEVNULL,
        env=environment(),
    )
    while not Path("outputs/run/metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    second = call("resume=outputs/run")
    took = time.monotonic() - began
    first.terminate()
    assert first.wait(60) == 143 and status(Path("outputs/run")) == "stopped"
    assert second.returncode == 2 and "another process is training in this directory" in second.stderr
    figure("Second process in a directory", f"exit 2 after {took:.1f} s; the first continues")


def test_a_sweep_with_a_tenth_of_its_jobs_killed_finishes_the_others(figure):
    sweep = ["--multirun", *TOY, f"seed={','.join(map(str, range(20)))}", "name=sweep", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen(command(*sweep), stdout=subprocess.PIPE, text=True, env=environment())
    for number in (4, 11):
        facts = Path(f"multirun/sweep/{number}/run.json")
        while not facts.exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(json.loads(facts.read_text())["pid"], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    jobs = json.loads(Path("multirun/sweep/sweep.json").read_text())
    assert [i for i, job in enumerate(jobs) if job["status"] != "finished"] == [4, 11]
    assert said.count("killed by signal 9") >= 2
    again = call(*sweep, "resume=auto")
    assert again.returncode == 0 and again.stdout.count("already finished") == 18
    assert {job["status"] for job in json.loads(Path("multirun/sweep/sweep.json").read_text())} == {"finished"}
    figure("Sweep of 20 jobs, 2 of them killed", "18 finish, 2 are reported, exit 1; resume=auto trains only the 2")


def endless(name: str) -> list[str]:
    """A run that trains until it is stopped, and saves often."""
    return [*TOY, "train.steps=400000000", "train.checkpoint_every=4000", "logger=none", f"name={name}"]


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def saved(run: Path) -> bool:
    return newest(run) > 0


def alive(pid: int) -> bool:
    """Whether any thread of a process may run. A process that has ended and waits for its parent does not run.

    The first thread of a killed process may end before the others, which still hold the locks of the process.
    """
    try:
        threads = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return True  # a thread ended during the search
    return any(thread.rpartition(")")[2].split()[0] not in "ZX" for thread in threads)


def test_interrupts_that_a_wrapper_doubles_save_and_a_later_one_ends(figure):
    process = subprocess.Popen(command(*endless("run")), stdout=subprocess.DEVNULL, env=environment())
    until(lambda: saved(Path("outputs/run")))
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and status(Path("outputs/run")) == "stopped"
    facts = json.loads(Path("outputs/run/run.json").read_text())
    assert facts["checkpoint"] == facts["step"]
    figure("Two SIGINTs, 20 ms apart", "count as one: saves and ends with status 130")


@pytest.mark.parametrize("how", ["hangup", "killed"])
def test_no_job_outlives_its_sweep(how, figure):
    """The terminal of a sweep closes, or its process is killed: its jobs save, and sweep.json says so."""
    sweep = command("--multirun", *endless("sweep"), "seed=1,2,3", "hydra.launcher.n_jobs=2")
    terminal, other_end = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *sweep], stdin=other_end, stdout=other_end, stderr=other_end, env=environment()
    )
    os.close(other_end)
    os.set_blocking(terminal, False)
    runs = [Path(f"multirun/sweep/{number}") for number in range(2)]

    def all_saved() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 1 << 20)  # otherwise the sweep would wait for a reader
        return all(map(saved, runs))

    until(all_saved)
    jobs = [json.loads((run / "run.json").read_text())["pid"] for run in runs]
    if how == "killed":
        process.kill()
    os.close(terminal)
    assert process.wait(60) == (-signal.SIGKILL if how == "killed" else 143)
    until(lambda: not any(map(alive, jobs)))
    for run in runs:
        facts = json.loads((run / "run.json").read_text())
        assert facts["status"] == "stopped" and facts["checkpoint"] == facts["step"]
    told = json.loads(Path("multirun/sweep/sweep.json").read_text())
    assert [job["status"] for job in told] == ["stopped", "stopped", "waiting"]
    if how == "hangup":
        figure("Terminal of a sweep closed (SIGHUP)", "its 2 jobs save and end; exit 143; sweep.json says stopped")
    else:
        figure("Process of a sweep killed", "its 2 jobs save and end; sweep.json says stopped")


def test_jobs_killed_with_their_sweep_are_not_called_running(figure):
    process = subprocess.Popen(
        command("--multirun", *endless("sweep"), "seed=1,2"), stdout=subprocess.DEVNULL, env=environment()
    )
    run = Path("multirun/sweep/0")
    until(lambda: saved(run))
    second = call("--multirun", *endless("sweep"), "seed=1,2", "resume=auto")
    assert second.returncode == 2 and "another process runs a sweep in this directory" in second.stderr
    job = json.loads((run / "run.json").read_text())["pid"]
    os.kill(job, signal.SIGSTOP)  # so that it cannot save once the sweep is killed
    process.kill()
    process.wait()
    os.kill(job, signal.SIGKILL)
    until(lambda: not alive(job))
    records_ = Path("multirun/sweep/sweep.json")
    assert [job["status"] for job in json.loads(records_.read_text())] == ["running", "waiting"]
    assert report(["multirun/sweep"]) == 0
    assert [job["status"] for job in json.loads(records_.read_text())] == ["killed", "waiting"]
    assert '"status":"killed"' in Path("multirun/sweep/report.html").read_text().replace('": "', '":"')
    figure("Sweep and its jobs killed", "gan-report calls the jobs killed, and corrects sweep.json")


def test_a_user_without_a_home_folder_trains_without_a_cache(figure, tmp_path):
    """The user has no entry in the password database, and HOME is not set or names no folder that can be made."""
    user = ["unshare", "--map-user=12345", "--map-group=12345", "env", "-i", f"PATH={os.environ['PATH']}"]
    if subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("needs util-linux and user namespaces")
    for name, home in {"unset": ["XDG_CACHE_HOME=relative"], "missing": ["HOME=/proc/missing"]}.items():
        done = subprocess.run(
            [*user, *home, f"PYTHONPATH={Path(__file__).parent}", *command(*TOY, f"name={name}")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("There is no cache") == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not Path("relative").exists()
    figure("User without a home folder", "trains without a cache, after one warning")


# Fails like Lustre without the mount option `flock` (ENOLCK) and like a mounted bucket (EPERM).
WITHOUT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#define FAIL(code) { errno = code; return -1; }
int flock(int file, int how) FAIL(ENOLCK)
int chmod(const char *path, mode_t mode) FAIL(EPERM)
int fchmod(int file, mode_t mode) FAIL(EPERM)
int fchmodat(int folder, const char *path, mode_t mode, int how) FAIL(EPERM)
int link(const char *path, const char *other) FAIL(EPERM)
int symlink(const char *path, const char *other) FAIL(EPERM)
#define FCNTL(name) int name(int file, int how, ...) { \
    va_list list; va_start(list, how); void *argument = va_arg(list, void *); va_end(list); \
    if (how == F_SETLK || how == F_SETLKW || how == F_OFD_SETLK || how == F_OFD_SETLKW) FAIL(ENOLCK) \
    return ((int (*)(int, int, void *)) dlsym(RTLD_NEXT, #name))(file, how, argument); }
FCNTL(fcntl)
FCNTL(fcntl64)
"""


def test_a_file_system_without_locks_and_permissions(figure, tmp_path):
    """The C library refuses locks, permissions and links, because no such file system can be mounted here."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    Path("without.c").write_text(WITHOUT)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "without.so", "without.c", "-ldl"], check=True)
    # `best/` holds a copy of a checkpoint.
    run = [*TINY, "metric=[kid]", "features=random", "train.eval_every=4", "train.eval_samples=100", "logger=none"]
    done = subprocess.run(
        command(*run, "name=without"),
        capture_output=True,
        text=True,
        env=environment(LD_PRELOAD=str(tmp_path / "without.so")),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the file system has no locks") == 1 and "Traceback" not in done.stderr
    subprocess.run(command(*run, "name=with"), env=environment(), check=True)
    for step in (4, 8):
        assert manifest(Path("outputs/without"), step) == manifest(Path("outputs/with"), step)
    figure("File system without locks, permissions and links", "trains, after one warning; the same bits")
