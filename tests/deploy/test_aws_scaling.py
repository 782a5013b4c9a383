"""Autoscaling on sessions: what the template asks of AWS, and what the server says. `make deploy-check`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ecan.testing.process import ServerProcess
from tests.deploy.aws import AWS, emulator, run, tool

pytestmark = [pytest.mark.aws, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
GIVEN = {
    "AWS::StackName": "ecan",
    "AWS::Region": "eu-west-1",
    "LogGroup": "/ecs/ecan",
    "Cluster": "ecan-cluster",
    "Service.Name": "ecan-service",
    "Capacity": "service/ecan-cluster/ecan-service|ecs:service:DesiredCount|ecs",
    "Task": "ecan:1",
    "Targets": "arn:targets",
    "TaskGroup": "sg-1",
    "PrivateSubnets": "subnet-1",
    "Data": "fs-1",
    "DataAccess": "fsap-1",
    "ExecutionRole.Arn": "arn:execution",
    "TaskRole.Arn": "arn:task",
    "VpcCidr": "10.0.0.0/16",
    "AdminPassword": "arn:secret",
    "Image": "ecan-web:v1",
}


def properties(resource, **parameters):
    """Of a resource of the template; None when its condition does not hold."""
    words = [f"{name}={value}" for name, value in {**GIVEN, **parameters}.items()]
    script = HERE / "aws_template.py"
    return json.loads(run(tool("python"), script, AWS / "ecan-web.cfn.yml", resource, *words))


def lower(value):
    """A template's properties as the API's parameters are spelled."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: lower(one) for key, one in value.items()}
    return [lower(one) for one in value] if isinstance(value, list) else value


def test_one_task_is_the_default():
    """Data on EFS, no scaling, and the old task is gone before the new one comes."""
    assert properties("Capacity") is None
    assert properties("SessionsPolicy") is None
    service = properties("Service")
    assert service["DesiredCount"] == 1
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == 0
    assert service["DeploymentConfiguration"]["MaximumPercent"] == 100
    (volume,) = properties("Task")["Volumes"]
    assert volume["EFSVolumeConfiguration"]["FilesystemId"] == "fs-1"


def test_several_tasks_share_no_file():
    """No EFS, or the second task would not start; a deployment keeps the old tasks until later."""
    (volume,) = properties("Task", MaxTasks=4)["Volumes"]
    assert volume == {"Name": "data"}
    service = properties("Service", MaxTasks=4)
    assert "DesiredCount" not in service
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == 100
    assert service["DeploymentConfiguration"]["MaximumPercent"] == 200


def test_what_is_asked_for_is_taken():
    """Metric filter, scalable target and policy, by their API; the emulator's stacks make none."""
    with emulator() as aws:
        # What they are about.
        aws("logs", "create-log-group", "--log-group-name", "/ecs/ecan")
        aws("ecs", "create-cluster", "--cluster-name", "ecan-cluster")
        aws(
            "ecs",
            "register-task-definition",
            "--family",
            "ecan",
            "--container-definitions",
            '[{"name":"web","image":"x","memory":64}]',
        )
        aws(
            "ecs", "create-service", "--cluster", "ecan-cluster", "--service-name", "ecan-service",
            "--task-definition", "ecan", "--desired-count", "1",
        )  # fmt: skip

        metric = lower(properties("SessionsInMemory"))
        aws(
            "logs",
            "put-metric-filter",
            "--filter-name",
            "sessions",
            "--cli-input-json",
            json.dumps(metric),
        )
        (filtered,) = aws("logs", "describe-metric-filters")["metricFilters"]
        assert filtered["metricTransformations"][0]["metricValue"] == "$.in_memory"

        target = properties("Capacity", MaxTasks=4)
        command = ("application-autoscaling", "register-scalable-target")
        aws(
            *command,
            "--cli-input-json",
            json.dumps(target | {"MaxCapacity": int(target["MaxCapacity"])}),
        )
        policy = properties("SessionsPolicy", MaxTasks=4, SessionsPerTask=700)
        assert policy.pop("ScalingTargetId") == GIVEN["Capacity"]
        same = {key: target[key] for key in ("ServiceNamespace", "ScalableDimension", "ResourceId")}
        tracking = policy["TargetTrackingScalingPolicyConfiguration"]
        tracking["TargetValue"] = float(tracking["TargetValue"])
        command = ("application-autoscaling", "put-scaling-policy")
        aws(*command, "--cli-input-json", json.dumps(policy | same))
        (put,) = aws(
            "application-autoscaling", "describe-scaling-policies", "--service-namespace", "ecs"
        )["ScalingPolicies"]
        assert put["ResourceId"] == "service/ecan-cluster/ecan-service"

        followed = put["TargetTrackingScalingPolicyConfiguration"]
        assert followed["TargetValue"] == 700
        made = filtered["metricTransformations"][0]
        asked = followed["CustomizedMetricSpecification"]
        assert (asked["Namespace"], asked["MetricName"]) == (
            made["metricNamespace"],
            made["metricName"],
        )


def test_the_server_says_what_the_filter_looks_for(tmp_path):
    """A real server with the task's settings: a JSON line with that event and that number."""
    environment = {
        one["Name"]: one["Value"]
        for one in properties("Task")["ContainerDefinitions"][0]["Environment"]
    }
    assert environment["ECAN_LOG_FIGURES"] == "60s"
    task = json.loads((AWS / "ecs-task-definition.json").read_text())
    same = {one["name"]: one["value"] for one in task["containerDefinitions"][0]["environment"]}
    assert same["ECAN_LOG_FIGURES"] == "60s"
    with ServerProcess(tmp_path, {"ECAN_LOG_FIGURES": "1s", "ECAN_LOG_FORMAT": "json"}) as server:
        line = json.loads(server.wait_for_output("server.figures"))
        assert server.stop() == 0
    metric = properties("SessionsInMemory")
    assert re.fullmatch(r'\{ \$\.event = "(.+)" \}', metric["FilterPattern"])[1] == line["event"]
    (transformation,) = metric["MetricTransformations"]
    assert line[transformation["MetricValue"].removeprefix("$.")] == 0
