"""Files that no test runs are read by the validators of what reads them. `make deploy-check`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from ecan.testing.process import ROOT, free_port
from tests.deploy.engine import TOOLS

pytestmark = [pytest.mark.aws, pytest.mark.timeout(300)]

AWS = ROOT / "deploy" / "aws"
FILL = {
    "ACCOUNT_ID": "123456789012",
    "AWS_REGION": "eu-west-1",
    "IMAGE_TAG": "v1",
    "EFS_ID": "fs-0123456789abcdef0",
    "EFS_ACCESS_POINT_ID": "fsap-0123456789abcdef0",
    "VPC_CIDR": "10.0.0.0/16",
}


def run(*words, env=None, **options):
    """A command; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        check=False,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name):
    path = TOOLS / name
    assert path.exists(), f"{name} is missing: make deploy-tools"
    return path


# -- validators ----------------------------------------------------------------------------


def test_compose_fits_its_schema():
    """The schema of the compose specification."""
    run(
        tool("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.web.yml",
    )


def test_systemd_units(tmp_path):
    """`systemd-analyze verify` finds only the program missing, which is not installed here."""
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: apt-get install systemd"
    here = tmp_path / "ecan"
    here.write_text("#!/bin/sh\n")
    here.chmod(0o755)
    units = []
    for unit in (ROOT / "deploy" / "systemd").iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/opt/ecan/venv/bin/ecan", str(here)))
        units.append(copy)
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], check=False, capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "ecan-" in line]
    assert said == []


def test_systemd_waits_longer_than_a_drain():
    """TimeoutStopSec is above ECAN_DRAIN_TIMEOUT, or systemd kills what should finish."""
    unit = (ROOT / "deploy" / "systemd" / "ecan-web.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[1]) > 25 + 5


def test_cloudformation_templates():
    """cfn-lint has nothing to say."""
    assert run(tool("cfn-lint"), *sorted(AWS.glob("*.cfn.yml"))) == ""


def test_the_task_definitions_agree():
    """The JSON for `aws ecs` and the one in the template run the container in the same way."""
    task = json.loads((AWS / "ecs-task-definition.json").read_text())
    (container,) = task["containerDefinitions"]
    template = (AWS / "ecan-web.cfn.yml").read_text()
    settings = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert container["stopTimeout"] > float(settings["ECAN_DRAIN_TIMEOUT"].removesuffix("s")) + 10
    assert f"StopTimeout: {container['stopTimeout']}" in template
    assert f"ECAN_DRAIN_TIMEOUT, Value: {settings['ECAN_DRAIN_TIMEOUT']}" in template
    assert "ECAN_ADMIN_PASSWORD" not in settings
    assert [entry["name"] for entry in container["secrets"]] == ["ECAN_ADMIN_PASSWORD"]


def test_amplify(tmp_path):
    """Its commands, in one shell, in a clean copy of what is committed, make the site."""
    names = run("git", "ls-files", "gui_v2").split("\n")
    for name in filter(None, names):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    text = (ROOT / "amplify.yml").read_text()
    commands = re.findall(r"^ +- (npm .+)$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    env = {**os.environ, "VITE_WS_URL": "wss://api.example.com/ws"}
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        check=False,
        cwd=tmp_path / "gui_v2",
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "gui_v2" / "dist" / "index.html").exists()
    scripts = (tmp_path / "gui_v2" / "dist" / "assets").glob("*.js")
    assert any("wss://api.example.com/ws" in script.read_text() for script in scripts)


# -- an emulator ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws():
    """``aws WORDS`` against moto."""
    port = free_port()
    env = {
        **os.environ,
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": FILL["AWS_REGION"],
        "NO_PROXY": "127.0.0.1",
    }
    server = subprocess.Popen(
        [str(tool("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def call(*words):
        return run("aws", *words, "--output", "json", env=env)

    try:
        run(
            "curl",
            "-sf",
            "--retry",
            "50",
            "--retry-delay",
            "1",
            "--retry-connrefused",
            f"http://127.0.0.1:{port}/moto-api/",
        )
        call.env = env
        yield call
    finally:
        server.terminate()
        server.wait(20)


def test_the_stack_and_its_pieces(aws):
    """The template makes ALB, sticky target group, service, EFS. (moto makes no secrets.)"""
    repository = json.loads(aws("ecr", "create-repository", "--repository-name", "ecan-web"))
    uri = repository["repository"]["repositoryUri"]
    vpc = json.loads(aws("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16"))["Vpc"]["VpcId"]
    subnets = [
        json.loads(
            aws(
                "ec2",
                "create-subnet",
                "--vpc-id",
                vpc,
                "--cidr-block",
                f"10.0.{n}.0/24",
                "--availability-zone",
                f"eu-west-1{'ab'[n % 2]}",
            )
        )["Subnet"]["SubnetId"]
        for n in range(4)
    ]
    certificate = json.loads(aws("acm", "request-certificate", "--domain-name", "ecan.example.com"))
    parameters = {
        "VpcId": vpc,
        "VpcCidr": FILL["VPC_CIDR"],
        "PublicSubnets": ",".join(subnets[:2]),
        "PrivateSubnets": ",".join(subnets[2:]),
        "FirstPrivateSubnet": subnets[2],
        "SecondPrivateSubnet": subnets[3],
        "CertificateArn": certificate["CertificateArn"],
        "Image": f"{uri}:v1",
    }
    aws(
        "cloudformation", "deploy", "--stack-name", "ecan", "--template-file", AWS / "ecan-web.cfn.yml",
        "--capabilities", "CAPABILITY_IAM", "--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items()),
    )  # fmt: skip
    kinds = {
        resource.get("ResourceType")
        for resource in json.loads(
            aws("cloudformation", "describe-stack-resources", "--stack-name", "ecan")
        )["StackResources"]
    }
    assert {
        "AWS::ECS::Service",
        "AWS::EFS::FileSystem",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
    } <= kinds
    (group,) = json.loads(aws("elbv2", "describe-target-groups"))["TargetGroups"]
    assert group["HealthCheckPath"] == "/health"
    listeners = json.loads(
        aws("elbv2", "describe-listeners", "--load-balancer-arn", group["LoadBalancerArns"][0])
    )["Listeners"]
    assert {listener["Port"] for listener in listeners} == {80, 443}


def test_the_task_definition_is_registered(aws):
    """register.sh fills in what is the site's own; AWS's model of it has nothing against it."""
    arn = run(AWS / "register.sh", env={**aws.env, **FILL}).strip()
    task = json.loads(aws("ecs", "describe-task-definition", "--task-definition", arn))
    (container,) = task["taskDefinition"]["containerDefinitions"]
    assert container["image"] == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ecan-web:v1"
    assert not re.search(r"\b(ACCOUNT_ID|AWS_REGION|EFS_ID|VPC_CIDR)\b", json.dumps(task))

    missing = subprocess.run(
        [str(AWS / "register.sh")], check=False, env=aws.env, capture_output=True, text=True
    )
    assert (missing.returncode, missing.stderr) == (2, "register.sh: ACCOUNT_ID is not set\n")


def test_the_frontend_is_published(aws):
    """Hashed files for a year, the page asked for each time, and an invalidation."""
    assert (ROOT / "gui_v2" / "dist" / "index.html").exists(), "not built: make gui"
    aws(
        "s3api",
        "create-bucket",
        "--bucket",
        "ecan-site",
        "--create-bucket-configuration",
        "LocationConstraint=eu-west-1",
    )
    config = {
        "CallerReference": "one",
        "Comment": "",
        "Enabled": True,
        "Origins": {
            "Quantity": 1,
            "Items": [
                {
                    "Id": "bucket",
                    "DomainName": "ecan-site.s3.eu-west-1.amazonaws.com",
                    "S3OriginConfig": {"OriginAccessIdentity": ""},
                }
            ],
        },
        "DefaultCacheBehavior": {
            "TargetOriginId": "bucket",
            "ViewerProtocolPolicy": "redirect-to-https",
        },
    }
    made = json.loads(
        aws("cloudfront", "create-distribution", "--distribution-config", json.dumps(config))
    )
    assert run(AWS / "publish.sh", "ecan-site", made["Distribution"]["Id"], env=aws.env).strip()

    def cache_of(key):
        head = aws("s3api", "head-object", "--bucket", "ecan-site", "--key", key)
        return json.loads(head)["CacheControl"]

    assert cache_of("index.html") == "no-cache"
    page = (ROOT / "gui_v2" / "dist" / "index.html").read_text()
    script = re.search(r'"/(assets/[^"]+\.js)"', page)[1]
    assert cache_of(script) == "public, max-age=31536000, immutable"
