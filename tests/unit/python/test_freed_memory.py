"""Memory that is freed stays for the next use: what arrives is not faulted in anew each time."""

from __future__ import annotations

import os
import subprocess
import sys

# As gRPC receives: many buffers, none of which is large, until they are freed together.
PROGRAM = """
import resource
from reprise import _abi

_abi.library()

def message():
    return [bytearray(64 << 10) for _ in range(128)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

message(), message()
before = faults()
for _ in range(20):
    message()
print((faults() - before) // 20)
"""
PAGES_OF_A_MESSAGE = 2048


def faults_of_a_message(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | environment, timeout=60,
        capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_message_lies_where_the_one_before_did() -> None:
    assert faults_of_a_message() < PAGES_OF_A_MESSAGE // 20


def test_what_the_owner_of_the_process_has_set_stays() -> None:
    assert faults_of_a_message(MALLOC_TRIM_THRESHOLD_="131072") > PAGES_OF_A_MESSAGE // 2
