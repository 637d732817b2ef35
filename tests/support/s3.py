"""A real S3 server for tests: moto's, in a process of its own, since it patches and logs as it likes."""

import os
import re
import subprocess
import sys

import boto3

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer

logging.disable()
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
print("listens on", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """Listens on 127.0.0.1 until it is stopped; what it holds is gone then.

    Attributes:
        environment: where boto3 finds it, and keys that it takes.
    """

    def __init__(self) -> None:
        self._buckets: list[str] = []
        self._port = 0
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it on the port that it had before, with its buckets, which are empty."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(self._port)],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        found = re.fullmatch(r"listens on (\d+)\n", self._process.stdout.readline())
        assert found
        self._port = int(found[1])
        for bucket in self._buckets:
            self._create(bucket)

    def stop(self) -> None:
        """Kill it."""
        with self._process:
            self._process.kill()

    def new_place(self) -> str:
        """Make a bucket, and return a place in it."""
        bucket = f"checkpoints-{len(self._buckets)}"
        self._buckets.append(bucket)
        self._create(bucket)
        return f"s3://{bucket}/some/prefix"

    def _create(self, bucket: str) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="tester",
            aws_secret_access_key="tester",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        client.close()
