"""Debian's Prometheus with a configuration and data of its own."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request

from rig.processes import Failed, free_port

CONFIGURATION = """
global: {{ scrape_interval: 2s, scrape_timeout: 2s }}
scrape_configs:
  - job_name: staffetta
    static_configs:
"""
# As the labels that the Prometheus operator gives to what a PodMonitor finds.
TARGET = "      - {{ targets: ['127.0.0.1:{port}'], labels: {{ namespace: mail, pod: staffetta-{service}-0 }} }}\n"


class Prometheus:
    """Scrapes the services, {name: port}."""

    def __init__(self, rig, services):
        self.port = free_port()
        configuration = rig.directory / "prometheus.yml"
        text = CONFIGURATION.format() + "".join(
            TARGET.format(service=name, port=port) for name, port in services.items())
        configuration.write_text(text)
        rig.start(
            "prometheus",
            ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={rig.directory / 'prometheus'}",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
            self._ready,
        )

    def _ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2).status == 200
        except OSError:
            return False

    def _get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Failed(f"{parameters}: {error.read().decode(errors='replace')}") from None

    def query(self, expression):
        """[(labels, value)] of an instant query; what is not a number is left out."""
        found = [(series["metric"], float(series["value"][1])) for series in self._get("query", query=expression)["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def label_values(self, label, selector):
        """What Grafana makes of `label_values(selector, label)`."""
        return self._get(f"label/{label}/values", **{"match[]": selector})
