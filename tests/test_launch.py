"""The launch files: local.sh runs, the others are what their readers accept."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.children import ONE_DEVICE

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = ["local.sh", "tpu_vm.sh", "slurm.sbatch"]
# options of sbatch(1) and srun(1) that the batch script may use
SBATCH = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "signal", "requeue"}
SBATCH |= {"open-mode", "output"}


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


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_arguments_a_script_says_what_it_takes(script):
    done = subprocess.run(["bash", LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 2 and "--workdir" in done.stderr + (LAUNCH / script).read_text()


def test_sbatch_options_are_known_and_come_before_the_first_command():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert options and max(options) < first_command
    names = [re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", lines[i])[1] for i in options]
    assert set(names) <= SBATCH and len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["gke_tpu.yaml", "gke_gpu.yaml"])
def test_jobsets_hold_valid_jobs(name):
    """Every job that the JobSet makes satisfies the schema of Kubernetes (the JobSet's own few fields are read here)."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    (jobset,) = yaml.safe_load_all((LAUNCH / name).read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset["spec"]) <= {"failurePolicy", "replicatedJobs"}
    (job,) = jobset["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
    kubernetes_validate.validate(manifest, "1.30", strict=True)
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    numbers = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
    if name == "gke_gpu.yaml":
        assert numbers["JAX_NUM_PROCESSES"] == str(spec["parallelism"])
        assert numbers["JAX_COORDINATOR_ADDRESS"].startswith(
            "{0}-{1}-0-0.{0}:".format(jobset["metadata"]["name"], job["name"])
        )
        assert "JAX_PROCESS_ID" in numbers


@pytest.mark.parametrize("name", ["gke_tpu.yaml", "gke_gpu.yaml"])
def test_the_flags_of_the_manifests_are_ours(name):
    from contrique_jax.main import parse_flags

    (jobset,) = yaml.safe_load_all((LAUNCH / name).read_text())
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    args = [arg.replace("configs/", f"{LAUNCH.parent}/configs/") for arg in pod["containers"][0]["args"]]
    assert parse_flags(args).distributed == "on"


def test_the_image_takes_what_an_installation_needs():
    copied = re.findall(r"^COPY (.+) \S+$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    names = " ".join(copied).split()
    assert all((LAUNCH.parent / name).exists() for name in names)
    assert {"setup.cfg", "pyproject.toml", "contrique_jax"} <= set(names)
