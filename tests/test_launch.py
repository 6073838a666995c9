"""The launch files: local.sh runs, the others are what their readers accept."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.children import ONE_DEVICE

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = ["local.sh", "tpu_vm.sh", "slurm.sbatch"]
# options of sbatch(1) that the batch script may use, and what they may hold
SBATCH = {
    "job-name": r"\w+",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "signal": r"B:TERM@\d+",
    "requeue": None,
    "open-mode": "append",
    "output": r"[\w.]*%j[\w.]*",
}
YAML = ["gke_tpu.yaml", "gke_gpu.yaml"]

# Stand-ins for programs of a cluster. They run what they are given, in $ROOM, and write down what they were told.
# main: waits for `go`; when asked to leave it saves a little later and exits as it was told by its flag
MAIN = r"""
code=0
for flag; do case $flag in --exit_code_if_unfinished=*) code=${flag#*=} ;; esac; done
me=${SLURM_PROCID:-$(basename "$HOME")}
trap 'sleep 0.3; touch "$ROOM/saved.$me"; exit "$code"' TERM
echo "$*" >"$ROOM/args.$me"
echo $$ >"$ROOM/started.$me"
for ((i = 0; i < 1000; i++)); do [[ -e $ROOM/go ]] && exit "$(cat "$ROOM/go")"; sleep 0.02; done
"""
# two tasks; it answers SIGTERM by killing them, and exits with the worst code, as srun(1) says
SRUN = r"""
echo "cpus-per-task=${SRUN_CPUS_PER_TASK:-}" >>"$ROOM/srun"
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do SLURM_PROCID=$i "$@" & tasks[i]=$!; done
trap 'kill -KILL "${tasks[@]}"' TERM
worst=0
for task in "${tasks[@]}"; do code=0; wait "$task" || code=$?; ((code > worst)) && worst=$code; done
exit "$worst"
"""
SCANCEL = '[[ $* == "--signal=TERM 17" ]] && kill -TERM $(cat "$ROOM"/started.*)'
SQUEUE = 'cat "$ROOM/state"'
SCONTROL = 'echo "$*" >>"$ROOM/scontrol"'
# each of two workers is a folder, its own $HOME
GCLOUD = r"""
echo "$*" >>"$ROOM/gcloud"
for arg; do case $arg in --command=*) command=${arg#*=} ;; esac; done
for worker in "$ROOM/worker0" "$ROOM/worker1"; do
  case $4 in
    scp) cp "$5" "$worker/${6#*:}" ;;
    ssh) (cd "$worker" && HOME=$worker bash -c "$command") || exit ;;
  esac
done
"""
# of the processes that match, only those of this test
PKILL = r"""
for process in $(pgrep "${@:2}"); do
  [[ $process != $$ ]] && grep -qz "^ROOM=$ROOM$" "/proc/$process/environ" 2>/dev/null && kill "$1" "$process"
done
"""
CURL = 'printf \'mkdir -p ~/.local/bin; cp "$ROOM/bin/uv" ~/.local/bin/uv\\n\'; echo "$*" >>"$ROOM/curl"'
UV = r"""
echo "$*" >>"$ROOM/uv"
if [[ $1 == venv ]]; then mkdir -p "${@: -1}/bin" && cp "$ROOM/bin/main" "${@: -1}/bin/python"; fi
"""
PYTHON3 = 'echo "the image has Python 3.10" >&2; exit 1'


@pytest.mark.slow
def test_local_runs_two_processes_of_two_devices(tmp_path):
    flags = ["--config", str(Path(__file__).parent / "tiny_config.py"), "--workdir", str(tmp_path / "run")]
    environment = os.environ | ONE_DEVICE | {"PYTHON": sys.executable, "LOGS": str(tmp_path)}
    command = [LAUNCH / "local.sh", "2", "2", *flags, "--config.train.steps=2", "--config.train.wait_seconds=120"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "4 device(s)" in done.stderr and (tmp_path / "run" / "model" / "model.json").exists()
    assert "done" not in (tmp_path / "local.1.log").read_text()


def test_local_hands_on_the_exit_code(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "LOGS": str(tmp_path)}
    done = subprocess.run(
        [LAUNCH / "local.sh", "1", "1", "--nonsense"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "nonsense" in (tmp_path / "local.0.log").read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    tool = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([tool, LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["local.sh", "tpu_vm.sh"])
def test_without_arguments_a_script_prints_its_head_and_does_nothing(room, script):
    head = itertools.takewhile(lambda line: line.startswith("#"), (LAUNCH / script).read_text().splitlines()[1:])
    done = subprocess.run(["bash", LAUNCH / script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in head]
    assert f"launch/{script} " in done.stderr and not (room / "gcloud").exists()


@pytest.mark.parametrize("command", [["slurm.sbatch"], ["tpu_vm.sh", "run"]])
def test_without_flags_a_script_asks_for_those_of_main(room, command):
    done = subprocess.run(["bash", LAUNCH / command[0], *command[1:]], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r".+: give the flags of contrique_jax.main, e.g. --config \S+ --workdir \S+\n", done.stderr)
    assert not (room / "srun").exists() and not (room / "gcloud").exists()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the stand-ins in `bin`, first on the PATH; ends what they have started."""
    programs = {
        "main": MAIN, "srun": SRUN, "scancel": SCANCEL, "squeue": SQUEUE, "scontrol": SCONTROL, "gcloud": GCLOUD,
        "pkill": PKILL, "curl": CURL, "uv": UV, "python3": PYTHON3,
    }  # fmt: skip
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for worker in ("worker0", "worker1"):
        (tmp_path / worker).mkdir()
    (tmp_path / "state").write_text("RUNNING\n")
    monkeypatch.setenv("ROOM", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield tmp_path
    (tmp_path / "go").write_text("0")


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def batch(room: Path, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen:
    """The batch script as job 17, with both tasks started."""
    monkeypatch.setenv("PYTHON", str(room / "bin" / "main"))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    job = subprocess.Popen(["bash", LAUNCH / "slurm.sbatch", "--workdir", "a folder"])
    until(lambda: all((room / f"started.{i}").exists() and (room / f"started.{i}").read_text() for i in (0, 1)))
    return job


@pytest.mark.parametrize("signalled", ["script", "tasks", "both"])
def test_a_signalled_slurm_job_saves_in_every_task_and_is_queued_again(room, batch, signalled):
    """At the time limit SLURM signals the script, when it preempts the tasks, on some clusters both."""
    if signalled != "script":
        for i in (0, 1):
            os.kill(int((room / f"started.{i}").read_text()), signal.SIGTERM)
    if signalled != "tasks":
        batch.send_signal(signal.SIGTERM)
    assert batch.wait(timeout=30) not in (0, 128 + signal.SIGTERM)
    assert (room / "saved.0").exists() and (room / "saved.1").exists()
    assert (room / "scontrol").read_text() == "requeue 17\n"
    assert (room / "args.1").read_text().endswith("--workdir a folder\n")


def test_a_cancelled_slurm_job_saves_and_stays_cancelled(room, batch):
    (room / "state").write_text("COMPLETING\n")
    batch.send_signal(signal.SIGTERM)
    batch.wait(timeout=30)
    assert (room / "saved.0").exists() and (room / "saved.1").exists() and not (room / "scontrol").exists()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_slurm_job_ends_with_the_code_of_its_tasks(room, batch, code):
    (room / "go").write_text(str(code))
    assert batch.wait(timeout=30) == code and not (room / "scontrol").exists()
    assert (room / "srun").read_text() == "cpus-per-task=12\n"


def test_sbatch_options_are_known_and_come_before_the_first_command():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert options and max(options) < first_command
    found = {}
    for i in options:
        name, _, value = lines[i].removeprefix("#SBATCH --").partition("=")
        assert name in SBATCH and name not in found
        assert re.fullmatch(SBATCH[name] or "", value), lines[i]
        found[name] = value
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert {"requeue", "signal", "open-mode"} <= set(found)  # or the run would not go on, or lose its log


def tpu_vm(*command: str) -> subprocess.CompletedProcess:
    # pipes as ssh has them: open as long as anything that was started holds them
    return subprocess.run(["bash", LAUNCH / "tpu_vm.sh", *command], capture_output=True, text=True, timeout=15)


def test_tpu_vm_sync_installs_a_python_that_the_project_supports(room):
    if not (LAUNCH.parent / ".git").exists():
        pytest.skip("needs the git repository")
    for _ in range(2):
        done = tpu_vm("sync")
        assert done.returncode == 0, done.stderr
    assert len((room / "curl").read_text().splitlines()) == 2  # once for each worker
    created, installed, *_ = (room / "uv").read_text().splitlines()
    version = re.search(r"--python (3\.\d+) ", created)[1]
    classifiers = (LAUNCH.parent / "setup.cfg").read_text()
    assert f"Programming Language :: Python :: {version}\n" in classifiers
    assert installed.endswith("./contrique_jax[tpu,gcs]")
    for worker in ("worker0", "worker1"):
        assert (room / worker / "contrique_jax" / "setup.cfg").exists()
        assert (room / worker / "venv" / "bin" / "python").exists()


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists() or not shutil.which("pgrep"), reason="needs Linux and pgrep"
)
def test_tpu_vm_run_returns_at_once_and_stop_asks_every_worker(room):
    for worker in ("worker0", "worker1"):
        (room / worker / "contrique_jax").mkdir()
        (room / worker / "venv" / "bin").mkdir(parents=True)
        (room / worker / "venv" / "bin" / "python").symlink_to(room / "bin" / "main")
    before = time.monotonic()
    done = tpu_vm("run", "--workdir", "gs://bucket/a run")
    assert done.returncode == 0 and time.monotonic() - before < 10, done.stderr
    until(lambda: all((room / f"started.worker{i}").exists() for i in (0, 1)))
    assert (room / "args.worker1").read_text().endswith("--distributed=on --workdir gs://bucket/a run\n")
    done = tpu_vm("stop")
    assert done.returncode == 0, done.stderr
    until(lambda: all((room / f"saved.worker{i}").exists() for i in (0, 1)))
    assert tpu_vm("stop").returncode == 0  # nothing left to ask


@pytest.fixture(params=YAML)
def jobset(request: pytest.FixtureRequest) -> dict:
    yaml = pytest.importorskip("yaml")
    (document,) = yaml.safe_load_all((LAUNCH / request.param).read_text())
    return document


def _job_and_pod(jobset: dict) -> tuple[dict, dict]:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"], replicated["template"]["spec"]["template"]["spec"]


def test_jobsets_hold_valid_jobs(jobset):
    """Every job that the JobSet makes satisfies the schema of Kubernetes."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    (job,) = jobset["spec"]["replicatedJobs"]
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
    kubernetes_validate.validate(manifest, "1.30", strict=True)
    spec, pod = _job_and_pod(jobset)
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    numbers = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
    if numbers:  # on TPUs jax finds the others by itself
        assert numbers["JAX_NUM_PROCESSES"] == str(spec["parallelism"])
        assert numbers["JAX_COORDINATOR_ADDRESS"].startswith(
            "{0}-{1}-0-0.{0}:".format(jobset["metadata"]["name"], job["name"])
        )
        assert "JAX_PROCESS_ID" in numbers


def test_jobsets_have_the_fields_of_a_jobset(jobset):
    """By JobSet's own API definition, in Kubeflow's client if it is installed."""
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(jobset["spec"]) == {"failurePolicy", "replicatedJobs"}
    assert set(jobset["spec"]["failurePolicy"]) == {"maxRestarts"}
    (job,) = jobset["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    # the last pod's name is a name in DNS
    longest = f"{jobset['metadata']['name']}-{job['name']}-0-{job['template']['spec']['parallelism']}"
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", longest)
    models = pytest.importorskip("kubeflow_trainer_api.models")
    _same(jobset, models.JobsetV1alpha2JobSet.from_dict(jobset).to_dict())


def _same(given: object, understood: object, at: str = "") -> None:
    """Raises if the model, which drops what it does not know, has not kept everything that was given."""
    if isinstance(given, dict) and isinstance(understood, dict):
        assert set(given) <= set(understood), (at, set(given) - set(understood))
        for name in given:
            _same(given[name], understood[name], f"{at}.{name}")
    elif isinstance(given, list) and isinstance(understood, list):
        assert len(given) == len(understood), at
        for i, (one, other) in enumerate(zip(given, understood, strict=True)):
            _same(one, other, f"{at}[{i}]")
    else:
        assert given == understood, at


def test_an_unfinished_jobset_starts_again(jobset):
    """A pod that exits with 0 counts as done, whatever is left: the exit code has to be another, and a failed pod the set's."""
    from contrique_jax.training.flags import parse_flags

    spec, pod = _job_and_pod(jobset)
    assert parse_flags(_flags(pod)).exit_code_if_unfinished > 0
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    # checkpoints are committed by renaming folders, which gcsfuse refuses
    (workdir,) = (arg.split("=")[1] for arg in pod["containers"][0]["args"] if arg.startswith("--workdir="))
    mounted = {volume["name"] for volume in pod.get("volumes", []) if "gcsfuse" in str(volume)}
    mounts = pod["containers"][0].get("volumeMounts", [])
    assert not any(workdir.startswith(mount["mountPath"]) for mount in mounts if mount["name"] in mounted)
    if workdir.startswith("gs://"):
        assert pod["serviceAccountName"]


def test_the_flags_of_the_manifests_are_ours(jobset):
    from contrique_jax.training.flags import parse_flags

    assert parse_flags(_flags(_job_and_pod(jobset)[1])).distributed == "on"


def _flags(pod: dict) -> list[str]:
    """With a config that is found from here and a bucket that could exist."""
    args = pod["containers"][0]["args"]
    return [arg.replace("configs/", f"{LAUNCH.parent}/configs/").replace("BUCKET", "bucket") for arg in args]


def test_a_confined_task_starts_a_thread_for_each_core_it_may_use(monkeypatch, tmp_path):
    from contrique_jax.config import Config, DataConfig
    from contrique_jax.data.broken import BrokenLog
    from contrique_jax.data.pipeline import Pipeline
    from contrique_jax.data.sources import open_source
    from contrique_jax.recipes.contrique import recipe

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6}, raising=False)
    data = DataConfig(batch_size=4, pristine="scenes:8", authentic="scenes:8")
    sources = {
        role: open_source(
            "scenes:8", role=role, field=f"config.data.{role}", seed=0, max_pixels=data.max_pixels, canvas=(64, 64)
        )
        for role in ("pristine", "authentic")
    }
    log = BrokenLog(tmp_path / "broken.txt")
    assert Pipeline(Config(data=data), recipe, sources, rows=range(4), broken=log).workers == 3


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.serve"])
def test_the_image_takes_what_an_installation_needs(file):
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (LAUNCH / file).read_text(), re.MULTILINE)
    names = " ".join(copied).split()
    assert all((LAUNCH.parent / name).exists() for name in names)
    assert {"setup.cfg", "pyproject.toml", "contrique_jax"} <= set(names)
