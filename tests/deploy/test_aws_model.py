"""Inputs for AWS, read against AWS's own models of its calls. `make deploy-check`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.aws import AWS, REGION, run, tool

pytestmark = [pytest.mark.aws, pytest.mark.timeout(120)]

MODEL = Path(__file__).parent / "aws_model.py"
FILL = {
    "ACCOUNT_ID": "123456789012",
    "AWS_REGION": REGION,
    "IMAGE_TAG": "v1",
    "EFS_ACCESS_POINT_ID": "fsap-0123456789abcdef0",
    "EFS_ID": "fs-0123456789abcdef0",
    "VPC_CIDR": "10.0.0.0/16",
}
APPRUNNER = (AWS / "apprunner.yaml").read_text("utf-8")
TASK = (AWS / "ecs-task-definition.json").read_text("utf-8")


def wrong(service, operation, text):
    """What AWS's model has against it; the placeholders are filled in."""
    filled = re.sub("|".join(FILL), lambda found: FILL[found[0]], text)
    done = subprocess.run(
        [tool("python"), MODEL, service, operation],
        check=False,
        input=filled,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == (1 if done.stdout.strip() else 0)
    return done.stdout.strip()


def test_app_runner():
    """The input of create-service."""
    assert wrong("apprunner", "CreateService", APPRUNNER) == ""


def test_the_task_definition():
    """The input of register-task-definition."""
    assert wrong("ecs", "RegisterTaskDefinition", TASK) == ""


@pytest.mark.parametrize(
    ("service", "operation", "text", "old", "new", "said"),
    [
        ("apprunner", "CreateService", APPRUNNER, "ServiceName: ecan-web", "", "Missing required"),
        ("apprunner", "CreateService", APPRUNNER, "Path: /", "Pfad: /", "Unknown parameter"),
        ("apprunner", "CreateService", APPRUNNER, "Protocol: HTTP", "Protocol: UDP", "none of"),
        ("apprunner", "CreateService", APPRUNNER, 'Cpu: "1024"', 'Cpu: "1000"', "does not match"),
        ("apprunner", "CreateService", APPRUNNER, "Timeout: 5", "Timeout: 50", "above 20"),
        ("apprunner", "CreateService", APPRUNNER, "ecan-web:IMAGE", "ecan web:IMAGE", "not match"),
        ("ecs", "RegisterTaskDefinition", TASK, '"awsvpc"', '"awsvcp"', "none of"),
        ("ecs", "RegisterTaskDefinition", TASK, '"stopTimeout": 90', '"stopTimeout": "90s"', "type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(service, operation, text, old, new, said):
    """A file that AWS would refuse."""
    assert old in text
    assert said in wrong(service, operation, text.replace(old, new))


def test_every_policy_grants_little():
    """No action on everything, and on every resource only the channel of `execute-command`."""
    for template in ("ecan-web.cfn.yml", "frontend.cfn.yml"):
        text = (AWS / template).read_text("utf-8")
        actions = set(re.findall(r'"([a-z0-9]+:[A-Za-z*]+)"', text))
        assert [action for action in actions if "*" in action] == []
        for statement in re.split(r"- Effect: Allow|- \{Effect: Allow", text)[1:]:
            if 'Resource: "*"' in statement.partition("- PolicyName")[0].partition("\n\n")[0]:
                used = re.findall(r'"(\w+:\w+)"', statement.partition('Resource: "*"')[0])
                assert {action.partition(":")[0] for action in used} == {"ssmmessages"}


def test_cloudformation_templates():
    """cfn-lint has nothing to say, IAM policies included."""
    assert run(tool("cfn-lint"), *sorted(AWS.glob("*.cfn.yml"))) == ""
