"""What is made from the chart is up to date: README, golden files, plain manifests. `tests/chart/write.py` writes it."""

import json
import re
import shlex
import unittest

import api_schema
import jsonschema
import plain
import rendering
import values_table
import write
import yaml

HINT = "run .servers/kube/python/bin/python tests/chart/write.py and look at the difference"
OVERLAYS = ("dev", "prod")


def paths(fields, prefix=""):
    """Of all fields, and of those below them."""
    for name, value in fields.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def kustomize(path):
    return rendering.objects_in(rendering.run("kubectl", "kustomize", plain.K8S / path))


class Values(unittest.TestCase):
    def test_every_value_is_described(self):
        self.assertEqual([], list(values_table.undescribed(values_table.values(), set(values_table.described()))))

    def test_the_table_in_the_readme_is_that_of_the_values(self):
        readme = write.README.read_text()
        self.assertEqual(values_table.with_table(readme), readme, HINT)

    def test_the_schema_refuses_keys_that_it_does_not_know_everywhere(self):
        schema = jsonschema.Draft7Validator(json.loads((rendering.CHART / "values.schema.json").read_text()))
        self.assertEqual([], list(schema.iter_errors(values_table.values())))
        parents = {path.rpartition(".")[0] for path in values_table.described()}
        for parent in parents - {"ingress.listeners", "global"}:
            values = values_table.values()
            (values_table.at(values, parent) if parent else values)["unknownKey"] = 1
            (error,) = schema.iter_errors(values)
            self.assertIn("unknownKey", error.message)


class Refusals(unittest.TestCase):
    def test_wrong_values_are_refused_by_both_majors(self):
        wrong = {
            "sender.replica=3": "replica",
            "sender.replicas=three": "replicas",
            "nats.replicas=2": "1.*3",
            "durability=sometimes": "durability",
            "nats.syncInterval=2m": "always",
            "partitions=65": "partitions",
            "ingress.listeners.relay.tsl=none": "tsl",
            "ingress.listeners.relay.port=25": "port",
            "nats.persistence.size=20G": "size",
            "image.digest=sha256:1": "digest",
            "ingress.listeners.with_underline.port=2": "with_underline",
            "sender.autoscaling.kind=vpa": "kind",
            "networkPolicies.smtpOut.except={10.0.0.0}": "except",
            "ingress.quotaReplicas=1001": "quotaReplicas",
            "ingress.failedLogins=10": "failedLogins",
            "networkPolicies.dnsPorts={0}": "dnsPorts",
            "sender.pod.hostNetwork=true": "hostNetwork",
            "redis.enabled=false": "redis.url or redis.existingSecret",
            "nats.enabled=false": "nats.url or nats.existingSecret",
            "sender.autoscaling.kind=keda": "serverAddress",
            "tls.certManager.enabled=true,tls.existingSecret=": "hostname is missing",
            "tls.selfSigned=false,tls.existingSecret=": "no certificate",
            "ingress.proxyService.enabled=true": "proxyFrom",
            "scheduler.admin.enabled=true": "scheduler.admin.secret",
            "feedback.links.enabled=true": "tokens.secret is missing",
        }
        for setting, why in wrong.items():
            for helm in rendering.HELMS:
                with self.assertRaisesRegex(rendering.Refused, f"(?s){why}", msg=setting):
                    rendering.rendered_with(setting, helm=helm)


class Documented(unittest.TestCase):
    def commands(self, readme):
        """The lines of the section Kubernetes that are typed."""
        section = readme.split("\n## Kubernetes\n")[1].split("\n## ")[0].replace("\\\n", " ")
        return [shlex.split(line) for line in section.splitlines() if line.startswith("    ")]

    def test_the_readme_needs_ten_commands_at_most_and_its_installation_renders(self):
        commands = self.commands((rendering.ROOT / "README.md").read_text())
        self.assertLessEqual(len(commands), 10)
        (install,) = [command for command in commands if command[:2] == ["helm", "install"]]
        end = install.index("--wait")
        for helm in rendering.HELMS:
            found = rendering.run(helm, "template", *install[2:end], cwd=rendering.ROOT)
            rendering.one(rendering.objects_in(found), "Deployment", "staffetta-sender")
        (scale,) = [command for command in commands if "scale" in command]
        self.assertIn("deployment/staffetta-sender", scale)

    def test_the_readme_names_the_images_that_are_not_ours(self):
        section = (rendering.ROOT / "README.md").read_text().split("\n## Kubernetes\n")[1].split("\n## ")[0]
        of = values_table.values()
        for image in (of["nats"]["image"], of["redis"]["image"], of["tests"]["image"]):
            self.assertIn(f"`{image['repository'].removeprefix('library/')}:{image['tag']}`", section)

    def test_every_field_of_the_bootstrap_file_can_be_set(self):
        """A field that is new in docs/configuration.md is forgotten here no more."""
        text = (rendering.ROOT / "docs" / "configuration.md").read_text()
        table = text.split("\n| `hostname` |")[1].split("\n\n")[0]
        rows = [row.split("|")[1] for row in f"|`hostname`|{table}".splitlines()]
        documented = {name for row in rows for name in re.findall(r"`([a-zA-Z.]+)`", row)}
        written = set()
        for values in rendering.VALUES:
            config = rendering.one(rendering.objects(values), "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"]
            written |= set(paths(yaml.safe_load(config)))
        elsewhere = {
            # In the URLs, or by a certificate of our own, which a volume and a URL can't give yet.
            *("nats.username", "nats.password", "redis.username", "redis.password", "nats.certificate", "nats.key"),
            # Each pod is one service.
            "all.metrics",
            # Files would go with their pod: webhooks, or a reader of the streams, serve a cluster.
            *(f"feedback.export.{field}" for field in ("folder", "rotateSize", "rotateEvery", "keep", "keepSize", "compress")),
        }
        self.assertGreater(len(documented), 30)
        self.assertEqual(elsewhere, documented - written)

    def test_the_examples_for_other_charts_fit_this_one(self):
        example = rendering.CHART / "examples" / "on-them.yaml"
        found = rendering.objects_in(rendering.template("helm4", "--values", example))
        self.assertFalse([it for it in found if it["kind"] == "StatefulSet"])


class Image(unittest.TestCase):
    """What is quick to see about the image; `make image` builds and runs it."""

    def test_with_docker_it_is_the_same_as_without(self):
        script = (rendering.ROOT / "image" / "build.sh").read_text()
        dockerfile = (rendering.ROOT / "Dockerfile").read_text()
        for part in (
            "/usr/local/bin/staffetta",
            "/etc/ssl/certs/ca-certificates.crt",
            "target-feature=+crt-static",
            "65532:65532",
            "PATH=/usr/local/bin",
            "SMTP relay for transactional and bulk mail",
            "Apache-2.0",
        ):
            self.assertIn(part, script)
            self.assertIn(part, dockerfile)
        version = re.search(r'(?m)^version = "(.*)"', (rendering.ROOT / "Cargo.toml").read_text())[1]
        self.assertIn(f'org.opencontainers.image.version="{version}"', dockerfile)
        self.assertIn(f"--tag staffetta:{version}", dockerfile)
        last = dockerfile.split("\nFROM ")[-1]
        self.assertTrue(last.startswith("scratch\n"))
        self.assertIn('ENTRYPOINT ["/usr/local/bin/staffetta"]', last)
        self.assertNotIn("RUN", last)

    def test_pods_run_it_as_the_user_that_it_names_and_the_chart_wants_its_version(self):
        version = re.search(r'(?m)^version = "(.*)"', (rendering.ROOT / "Cargo.toml").read_text())[1]
        for name, labels, spec in rendering.pod_templates(rendering.objects()):
            if labels["app.kubernetes.io/component"] not in ("nats", "redis", "test"):
                self.assertEqual((65532, 65532), tuple(spec["securityContext"][it] for it in ("runAsUser", "runAsGroup")))
                for container in rendering.containers(spec):
                    self.assertEqual(f"staffetta:{version}", container["image"], name)


class Made(unittest.TestCase):
    def test_golden_files_are_what_the_chart_renders(self):
        self.maxDiff = None
        for name, text in plain.golden().items():
            path = plain.GOLDEN / name
            self.assertEqual(path.read_text() if path.exists() else "", text, HINT)

    def test_plain_manifests_are_what_the_chart_renders(self):
        self.maxDiff = None
        files = plain.manifests()
        there = {
            str(path.relative_to(plain.K8S))
            for folder in ("base", "components")
            for path in (plain.K8S / folder).rglob("*.yaml")
        }
        self.assertEqual(set(files), there, HINT)
        for name, text in files.items():
            self.assertEqual((plain.K8S / name).read_text(), text, f"{name}: {HINT}")


class Overlays(unittest.TestCase):
    def test_overlays_build_and_kubernetes_would_take_them(self):
        for overlay in OVERLAYS:
            found = kustomize(f"overlays/{overlay}")
            for minor in ("1.30", "1.37"):
                self.assertEqual([], list(api_schema.problems(minor, found)), overlay)

    def test_what_pods_refer_to_is_in_the_overlay_or_made_by_hand(self):
        by_hand = {("Secret", "staffetta-tls")}
        for overlay in OVERLAYS:
            found = kustomize(f"overlays/{overlay}")
            there = {(it["kind"], it["metadata"]["name"]) for it in found} | by_hand
            for name, _, spec in rendering.pod_templates(found):
                wanted = {("ServiceAccount", spec["serviceAccountName"])}
                for volume in spec.get("volumes", []):
                    if "configMap" in volume:
                        wanted.add(("ConfigMap", volume["configMap"]["name"]))
                    if "secret" in volume:
                        wanted.add(("Secret", volume["secret"]["secretName"]))
                self.assertLessEqual(wanted, there, f"{overlay} {name}")

    def test_the_cluster_of_production_is_what_the_chart_makes_of_three_servers(self):
        found = kustomize("overlays/prod")
        made = rendering.objects_in(plain.chart("--set", "nats.replicas=3"))
        for kind, name in [("StatefulSet", "staffetta-nats"), ("NetworkPolicy", "staffetta-nats")]:
            self.assertEqual(rendering.one(made, kind, name)["spec"], rendering.one(found, kind, name)["spec"])
        for name in ("staffetta-nats", "staffetta-config"):
            of = [rendering.one(them, "ConfigMap", name)["data"] for them in (made, found)]
            self.assertEqual(*of)
        jobs = [[it["metadata"]["name"] for it in them if it["kind"] == "Job"] for them in (made, found)]
        self.assertEqual(*jobs)


if __name__ == "__main__":
    unittest.main()
