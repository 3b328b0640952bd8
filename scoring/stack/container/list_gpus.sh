#!/bin/sh
# Spark asks this script which GPUs a worker has: {"name": "gpu", "addresses": ["0", "1"]}
addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/.*/"&"/' | paste -sd, -)
echo "{\"name\": \"gpu\", \"addresses\": [$addresses]}"
