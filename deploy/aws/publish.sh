#!/bin/sh
# Puts a built browser app (gui_v2/dist) behind CloudFront:
#
#   deploy/aws/publish.sh BUCKET DISTRIBUTION_ID
#
# Hashed files first and the page last, so that no page names files that are not there yet. Old
# files stay: pages that are open still load them.
set -eu
bucket=${1:?usage: publish.sh BUCKET DISTRIBUTION_ID}
distribution=${2:?usage: publish.sh BUCKET DISTRIBUTION_ID}
dist=$(dirname "$0")/../../gui_v2/dist

aws s3 sync "$dist/assets" "s3://$bucket/assets" --only-show-errors \
  --cache-control "public, max-age=31536000, immutable"
aws s3 sync "$dist" "s3://$bucket" --only-show-errors --exclude "assets/*" --cache-control no-cache
aws cloudfront create-invalidation --distribution-id "$distribution" --paths / /index.html /favicon.svg \
  --query Invalidation.Id --output text
