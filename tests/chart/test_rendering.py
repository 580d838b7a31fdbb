"""Both majors of Helm render every set of values alike, and Kubernetes would take what comes out."""

import ipaddress
import unittest

import api_schema
import rendering

OLDEST, NEWEST = "1.30", "1.37"


class Rendering(unittest.TestCase):
    def test_lint_is_strict_and_silent(self):
        for helm in rendering.HELMS:
            for name in rendering.VALUES:
                with self.subTest(helm=helm, values=name):
                    rendering.run(helm, "lint", "--strict", rendering.CHART, *rendering.from_values(name))

    def test_both_majors_of_helm_render_the_same(self):
        for name in rendering.VALUES:
            with self.subTest(values=name):
                old, new = (without_random(rendering.objects(name, helm)) for helm in rendering.HELMS)
                self.assertEqual(sorted(map(key, old)), sorted(map(key, new)))
                for it in new:
                    (same,) = [other for other in old if key(other) == key(it)]
                    self.assertEqual(same, it)

    def test_objects_fit_the_schemas_of_the_oldest_and_the_newest_kubernetes(self):
        for minor in (OLDEST, NEWEST):
            for name in rendering.VALUES:
                with self.subTest(kubernetes=minor, values=name):
                    self.assertEqual([], list(api_schema.problems(minor, rendering.objects(name))))

    def test_a_schema_error_and_a_removed_kind_are_seen(self):
        wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "date": {}}
        gone = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}}
        self.assertEqual(2, len(list(api_schema.problems(NEWEST, [wrong, gone]))))

    def test_an_older_kubernetes_is_refused(self):
        for helm in rendering.HELMS:
            with self.assertRaisesRegex(rendering.Refused, "1.29"):
                rendering.template(helm, "--kube-version", "1.29.0")

    def test_no_two_objects_have_the_same_name(self):
        for name in rendering.VALUES:
            keys = [key(it) for it in rendering.objects(name)]
            self.assertEqual(len(keys), len(set(keys)), name)

    def test_names_and_networks_are_what_the_api_server_takes(self):
        """What schemas do not say, and an API server refuses."""
        for values in rendering.VALUES:
            for it in rendering.objects(values):
                self.assertLessEqual(len(it["metadata"]["name"]), 63)
                if it["kind"] == "NetworkPolicy":
                    for block in blocks(it["spec"]):
                        network = ipaddress.ip_network(block["cidr"])
                        for without in map(ipaddress.ip_network, block.get("except", [])):
                            self.assertTrue(without.version == network.version and without.subnet_of(network))
                            self.assertFalse(getattr(without.network_address, "ipv4_mapped", None))
            for name, _, spec in rendering.pod_templates(rendering.objects(values)):
                volumes = [volume["name"] for volume in spec.get("volumes", [])] + claimed(values, name)
                self.assertEqual(len(volumes), len(set(volumes)), name)
                for container in rendering.containers(spec):
                    paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
                    self.assertEqual(len(paths), len(set(paths)), name)
                    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                    self.assertLessEqual(mounted, set(volumes), name)
                    for port in container.get("ports", []):
                        self.assertLessEqual(len(port["name"]), 15)

    def test_a_long_release_name_still_fits(self):
        text = rendering.run(
            "helm4", "template", "a-release-with-a-name-of-fifty-three-characters-xxxxx", rendering.CHART
        )
        for it in rendering.objects_in(text):
            self.assertLessEqual(len(it["metadata"]["name"]), 63)


def claimed(values, name):
    """Volumes that a StatefulSet makes for its pods."""
    for it in rendering.objects(values):
        if it["kind"] == "StatefulSet" and name == f"StatefulSet/{it['metadata']['name']}":
            return [claim["metadata"]["name"] for claim in it["spec"].get("volumeClaimTemplates", [])]
    return []


def key(it):
    return it["apiVersion"], it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"]


def without_random(found):
    """Without the self-signed certificate, which is another one each time."""
    return [{**it, "data": None} if it["kind"] == "Secret" else it for it in found]


def blocks(policy):
    for rules, peers in (("ingress", "from"), ("egress", "to")):
        for rule in policy.get(rules, []):
            for peer in rule.get(peers, []):
                if "ipBlock" in peer:
                    yield peer["ipBlock"]


if __name__ == "__main__":
    unittest.main()
