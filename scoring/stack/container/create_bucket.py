"""Creates a bucket of the object store unless it is there: `create_bucket.py NAME`."""

import os
import sys

import boto3

store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
try:
    store.create_bucket(Bucket=sys.argv[1])
except (store.exceptions.BucketAlreadyOwnedByYou, store.exceptions.BucketAlreadyExists):
    print(f"bucket {sys.argv[1]} is there", file=sys.stderr)
