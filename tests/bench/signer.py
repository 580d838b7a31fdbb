"""Benchmark `signer`: CPU time of a DKIM signature with RSA-2048 against `openssl speed` in the same minute, and what
gRPC adds to a request in calls of eight.

A ratio below 1 means less time than openssl takes for the signature alone.
"""

import json
import subprocess

from rig.processes import ROOT, Failed

from .figures import Figures
from .relay import rsa_2048_us

PROGRAM = ROOT / "target" / "release" / "examples" / "bench-signer"


def run():
    """Runs it and prints the table."""
    figures = Figures("signer")
    openssl_us = rsa_2048_us(processes=1)
    found = subprocess.run([PROGRAM], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode != 0:
        raise Failed(f"bench-signer ended with {found.returncode}")
    openssl_us = (openssl_us + rsa_2048_us(processes=1)) / 2
    for line in found.stdout.splitlines():
        figure = json.loads(line)
        figures.add(figure["case"], figure["metric"], figure["value"], figure["unit"])
    figures.add("rsa2048", "openssl_us", openssl_us, "us")
    for metric, own in (("ratio_to_openssl", "us_per_signature"), ("ratio_to_openssl_alone", "us_per_signature_alone")):
        figures.add("rsa2048", metric, figures.values["rsa2048", own] / openssl_us, "1")
    for (case, metric), value in figures.values.items():
        print(f"{case:<12}{metric:<26}{value:>12,.2f}")
    print(f"written to {figures.path}")
