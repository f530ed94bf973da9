"""The image and the cluster that `jobs/` offers say what is true: options, versions, extras and the fields of Ray."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from batchdigits import __version__
from batchdigits.cli.app import app
from tests.cli_runner import CHECKOUT

DOCKERFILE = (CHECKOUT / "jobs" / "Dockerfile").read_text()
CLUSTER = (CHECKOUT / "jobs" / "ray-cluster.yaml").read_text()
STAGES = dict(re.findall(r"^FROM (?:\S+) AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE))


def cluster() -> dict[str, Any]:
    """Read the example; Ray brings the library that can."""
    config: dict[str, Any] = pytest.importorskip("yaml", reason="needs batchdigits[ray]").safe_load(CLUSTER)
    return config


# ---- the image -----------------------------------------------------------------------------------------------------


def test_the_image_begins_with_one_release_of_python_that_the_package_takes() -> None:
    [base] = re.findall(r"^FROM ([^ :]+:\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.(11|12|13)\.\d+-slim-\w+", base), base
    assert f'base.name="docker.io/library/{base}"' in DOCKERFILE


@pytest.mark.parametrize("stage", ["job", "cluster"])
def test_what_runs_is_not_root(stage: str) -> None:
    assert re.findall(r"^USER (.*)", STAGES[stage], re.MULTILINE)[-1] == "1000:1000"


def test_the_image_that_is_built_by_default_runs_the_command() -> None:
    assert list(STAGES)[-1] == "job"
    assert 'ENTRYPOINT ["batchdigits"]' in STAGES["job"]


def test_the_image_has_the_pinned_versions_and_the_extras_that_there_are() -> None:
    [extras] = re.findall(r"-c constraints\.txt '\.\[(.*?)\]'", STAGES["build"])
    there = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) == {"litert", "ray", "remote"} <= set(there)


def test_what_is_copied_into_the_image_is_all_that_its_build_may_see() -> None:
    sources = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    ignored, *seen = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[0] in "*!"]
    assert ignored == "*"
    assert sorted(sources) == sorted(line[1:] for line in seen if line[0] == "!")
    assert all((CHECKOUT / name).exists() for name in sources)


# ---- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [DOCKERFILE, CLUSTER], ids=["Dockerfile", "ray-cluster.yaml"])
def test_every_version_that_is_named_is_that_of_the_package(text: str) -> None:
    versions = re.findall(r'batchdigits(?:-cluster)?[: ](\d+\.\d+\.\d+)|image\.version="(.*?)"', text)
    assert {one or other for one, other in versions} == {__version__}


@pytest.mark.parametrize("text", [DOCKERFILE, CLUSTER], ids=["Dockerfile", "ray-cluster.yaml"])
def test_every_option_of_a_command_that_is_shown_exists(text: str) -> None:
    shown = re.sub(r"\\\n#", "", text)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    there = {name for option in commands["predict"].params for name in option.opts}
    used = [name for line in re.findall(r"\spredict (.*)", shown) for name in re.findall(r"(?<= )--?\w[\w-]*", line)]
    assert used
    assert set(used) <= there


# ---- the cluster ---------------------------------------------------------------------------------------------------


def test_the_cluster_reads_no_image_on_its_head_and_has_workers_from_the_start() -> None:
    types = cluster()["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert 1 <= types["worker"]["min_workers"] <= types["worker"]["max_workers"] <= cluster()["max_workers"]


def test_the_nodes_run_the_cluster_image_and_refuse_another_version() -> None:
    assert f"-t {cluster()['docker']['image']} ." in DOCKERFILE
    assert cluster()["setup_commands"] == [f'test "$(batchdigits --version)" = "batchdigits {__version__}"']


def test_no_secret_stands_in_the_example() -> None:
    assert not re.search(r"AKIA|aws_secret|password|BEGIN .*KEY|RAY_AUTH_TOKEN=", CLUSTER, re.IGNORECASE)
    assert cluster()["file_mounts"] == {"~/.ray": "~/.ray"}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's, boto3's and moto's own
def test_ray_takes_the_example_and_starts_both_kinds_of_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own code, up to what Amazon would be asked, of which moto is the stand-in."""
    util = pytest.importorskip("ray.autoscaler._private.util", reason="needs batchdigits[ray]")
    server = pytest.importorskip("moto.server", reason="needs batchdigits[scaleout-test]")
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = util.prepare_config(cluster())
    util.validate_config(config)
    amazon = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    amazon.start()
    try:
        host, port = amazon.get_host_and_port()
        monkeypatch.setenv("HOME", str(tmp_path))  # gets the key pair
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", config["provider"]["region"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        ready = bootstrap_aws(config)
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        for name, node in ready["available_node_types"].items():
            profile = node["node_config"]["IamInstanceProfile"]["Arn"].rpartition("/")[-1]
            boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
            tags = {"ray-node-type": name, "ray-user-node-type": name, "ray-node-name": name}
            assert len(provider.create_node(dict(node["node_config"]), tags, 1)) == 1
    finally:
        amazon.stop()
