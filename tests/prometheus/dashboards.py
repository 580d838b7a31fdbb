"""Grafana's dashboards as JSON: what they ask, and what they must be to be installed with others."""

import json
import re

from rig.processes import ROOT, Failed

FOLDER = ROOT / "charts" / "staffetta" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Dashboard:
    """One file."""

    def __init__(self, path):
        self.name = path.name
        self.model = json.loads(path.read_text())
        self.variables = {variable["name"]: variable for variable in self.model["templating"]["list"]}
        self.panels = [panel for panel in self.model["panels"] if panel["type"] != "row"]

    def queries(self):
        """(panel's title, query as written, format of the legend) of every target."""
        for panel in self.panels:
            for target in panel["targets"]:
                yield panel["title"], target["expr"], target.get("legendFormat", "")

    def check(self):
        """Raises when Grafana would not take it, or not show it right beside others."""
        def must(condition, problem):
            if not condition:
                raise Failed(f"{self.name}: {problem}")

        must(re.fullmatch(r"[a-z0-9-]{1,40}", self.model.get("uid", "")), "no stable uid of at most 40 characters")
        must(self.model.get("id") is None, "an id belongs to one Grafana only")
        must(self.variables.get("datasource", {}).get("type") == "datasource", "no variable for the data source")
        titles = [panel["title"] for panel in self.panels]
        must(len(set(titles)) == len(titles), "two panels of one title")
        ids = [panel["id"] for panel in self.model["panels"]]
        must(len(set(ids)) == len(ids), "two panels of one id")
        places = set()
        for panel in self.panels:
            title, place = panel["title"], panel["gridPos"]
            must(panel["datasource"] == DATASOURCE, f"{title}: not the data source of the variable")
            must(panel.get("description"), f"{title}: no description")
            must(panel["targets"], f"{title}: asks nothing")
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            must(not cells & places and place["x"] + place["w"] <= 24, f"{title}: does not fit where it is")
            places |= cells
        for variable in self.variables.values():
            if variable["type"] == "query":
                must(variable["datasource"] == DATASOURCE, f"variable {variable['name']}: another data source")


def all_dashboards():
    """Those of the chart, with different uids and titles."""
    found = [Dashboard(path) for path in sorted(FOLDER.glob("*.json"))]
    for field in ("uid", "title"):
        values = [dashboard.model[field] for dashboard in found]
        if len(set(values)) != len(values):
            raise Failed(f"two dashboards with one {field}: {sorted(values)}")
    if not found:
        raise Failed(f"no dashboard in {FOLDER}")
    return found
