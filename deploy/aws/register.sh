#!/bin/sh
# Registers ecs-task-definition.json and prints the new revision's ARN:
#
#   ACCOUNT_ID=... AWS_REGION=... IMAGE_TAG=... EFS_ID=... EFS_ACCESS_POINT_ID=... VPC_CIDR=... deploy/aws/register.sh
set -eu
expression=
for name in ACCOUNT_ID AWS_REGION IMAGE_TAG EFS_ACCESS_POINT_ID EFS_ID VPC_CIDR; do
  eval "value=\${$name:-}"
  [ -n "$value" ] || { echo "register.sh: $name is not set" >&2; exit 2; }
  expression="$expression;s|$name|$value|g"
done
task=$(sed "${expression#;}" "$(dirname "$0")/ecs-task-definition.json")
aws ecs register-task-definition --cli-input-json "$task" \
  --query taskDefinition.taskDefinitionArn --output text
