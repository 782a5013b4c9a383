"""deploy.md's blocks about AWS, run against an emulator. `make deploy-check`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from ecan.testing.process import ROOT
from tests.deploy.aws import AWS, REGION, Emulator, emulator, run
from tests.deploy.blocks import Shell, commands, committed_files

pytestmark = [pytest.mark.aws, pytest.mark.timeout(300)]

FILL = {
    "ACCOUNT_ID": "123456789012",
    "AWS_REGION": REGION,
    "IMAGE_TAG": "v1",
    "EFS_ID": "fs-0123456789abcdef0",
    "EFS_ACCESS_POINT_ID": "fsap-0123456789abcdef0",
    "VPC_CIDR": "10.0.0.0/16",
}
REGISTRY = f"{FILL['ACCOUNT_ID']}.dkr.ecr.{REGION}.amazonaws.com"


@pytest.fixture
def aws() -> Iterator[Emulator]:
    with emulator() as made:
        yield made


@pytest.fixture
def network(aws) -> dict[str, str]:
    """A VPC with four subnets and a certificate: what a reader fills in, by the guide's names."""
    vpc = aws("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        aws(
            "ec2", "create-subnet", "--vpc-id", vpc, "--cidr-block", f"10.0.{n}.0/24",
            "--availability-zone", f"{REGION}{'ab'[n % 2]}",
        )["Subnet"]["SubnetId"]
        for n in range(4)
    ]  # fmt: skip
    certificate = aws("acm", "request-certificate", "--domain-name", "ecan.example.com")
    ours = {f"subnet-{letter}": made for letter, made in zip("abcd", subnets, strict=True)}
    return {**ours, "vpc-…": vpc, "arn:…": certificate["CertificateArn"]}


@pytest.fixture
def reader(aws, tmp_path):
    """Somebody whose `docker` only notes what it is asked: there is no registry to push to."""
    shell = Shell(ROOT, aws.env)
    return shell.with_tools(
        tmp_path / "bin",
        docker=f'echo "$@" >>{tmp_path}/docker; [ "$1" != login ] || cat >/dev/null',
    )


def resources(aws, stack) -> dict[str, list[str]]:
    """Kind → ids of what a stack made. (moto makes no secrets.)"""
    made: dict[str, list[str]] = {}
    for one in aws("cloudformation", "describe-stack-resources", "--stack-name", stack)[
        "StackResources"
    ]:
        made.setdefault(one.get("ResourceType"), []).append(one.get("PhysicalResourceId"))
    return made


def test_fargate(aws, network, reader, tmp_path):
    """Repository, login, push, stack: ALB with its listeners, sticky targets, service, EFS."""
    ours = {"ACCOUNT_ID.dkr.ecr.REGION.amazonaws.com": REGISTRY, **network}
    for command in commands("deploy/AWS Fargate/1", ours):
        reader(command)

    (repository,) = aws("ecr", "describe-repositories")["repositories"]
    assert repository["repositoryUri"] == f"{REGISTRY}/ecan-web"
    assert (tmp_path / "docker").read_text().splitlines() == [
        f"login --username AWS --password-stdin {REGISTRY}",
        f"tag ecan-web {REGISTRY}/ecan-web:v1",
        f"push {REGISTRY}/ecan-web:v1",
    ]
    made = resources(aws, "ecan")
    assert {
        "AWS::ECS::Service",
        "AWS::EFS::FileSystem",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
    } <= set(made)
    (group,) = aws("elbv2", "describe-target-groups")["TargetGroups"]
    assert group["HealthCheckPath"] == "/health"
    attributes = aws(
        "elbv2", "describe-target-group-attributes", "--target-group-arn", group["TargetGroupArn"]
    )["Attributes"]
    assert {"Key": "stickiness.type", "Value": "lb_cookie"} in attributes
    listeners = aws(
        "elbv2", "describe-listeners", "--load-balancer-arn", group["LoadBalancerArns"][0]
    )["Listeners"]
    assert {listener["Port"] for listener in listeners} == {80, 443}


def test_the_task_definition_is_registered(aws):
    """register.sh fills in what is the site's own; AWS's model of it has nothing against it."""
    arn = run(AWS / "register.sh", env={**aws.env, **FILL}).strip()
    task = aws("ecs", "describe-task-definition", "--task-definition", arn)
    (container,) = task["taskDefinition"]["containerDefinitions"]
    assert container["image"] == f"{REGISTRY}/ecan-web:v1"
    assert not re.search(r"\b(ACCOUNT_ID|AWS_REGION|EFS_ID|VPC_CIDR)\b", json.dumps(task))

    missing = subprocess.run(
        [str(AWS / "register.sh")], check=False, env=aws.env, capture_output=True, text=True
    )
    assert (missing.returncode, missing.stderr) == (2, "register.sh: ACCOUNT_ID is not set\n")


def distribution(aws, bucket):
    """The emulator's stacks make no distributions."""
    origin = {
        "Id": "bucket",
        "DomainName": f"{bucket}.s3.{REGION}.amazonaws.com",
        "S3OriginConfig": {"OriginAccessIdentity": ""},
    }
    config = {
        "CallerReference": "one",
        "Comment": "",
        "Enabled": True,
        "Origins": {"Quantity": 1, "Items": [origin]},
        "DefaultCacheBehavior": {
            "TargetOriginId": "bucket",
            "ViewerProtocolPolicy": "redirect-to-https",
        },
    }
    made = aws("cloudfront", "create-distribution", "--distribution-config", json.dumps(config))
    return made["Distribution"]["Id"]


def test_the_frontend_on_s3_and_cloudfront(aws, reader, tmp_path):
    """Stack, build, publish: hashed files for a year, the page asked for each time."""
    reader.cwd = clone = tmp_path / "clone"
    committed_files(clone, "gui_v2", "deploy/aws")
    (clone / "gui_v2" / "node_modules").symlink_to(ROOT / "gui_v2" / "node_modules")
    stack, build, publish = commands("deploy/The browser app on S3 and CloudFront/1")
    reader(stack)
    reader(build)
    (bucket,) = resources(aws, "ecan-site")["AWS::S3::Bucket"]
    publish = publish.replace("BUCKET", bucket).replace(
        "DISTRIBUTION_ID", distribution(aws, bucket)
    )
    assert reader(publish).strip()

    def cache_of(key):
        return aws("s3api", "head-object", "--bucket", bucket, "--key", key)["CacheControl"]

    assert cache_of("index.html") == "no-cache"
    dist = clone / "gui_v2" / "dist"
    script = re.search(r'"/(assets/[^"]+\.js)"', (dist / "index.html").read_text())[1]
    assert cache_of(script) == "public, max-age=31536000, immutable"
    assert "wss://api.example.com/ws" in (dist / script).read_text()
