"""What an upgrade keeps of what it finds in the cluster. The API server is a stand-in that holds a few objects."""

import unittest

import rendering
from cluster import Cluster

SENDER = "staffetta-sender"


def deployment(replicas, annotation=None):
    annotations = {"staffetta.dev/replicas": annotation} if annotation else {}
    metadata = {"name": SENDER, "namespace": rendering.NAMESPACE, "annotations": annotations}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def nats(servers, size="20Gi"):
    claims = [{"spec": {"resources": {"requests": {"storage": size}}}}] if size else []
    metadata = {"name": "staffetta-nats", "namespace": rendering.NAMESPACE}
    spec = {"replicas": servers, "volumeClaimTemplates": claims}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def claim(number):
    metadata = {"name": f"data-staffetta-nats-{number}", "namespace": rendering.NAMESPACE}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}


def init_job(succeeded, release="staffetta"):
    labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/component": "init"}
    metadata = {"name": "staffetta-init-0", "namespace": rendering.NAMESPACE, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": {"succeeded": succeeded}}


class Upgrades(unittest.TestCase):
    def with_both(self, objects, *settings):
        for helm in rendering.HELMS:
            with Cluster(*objects) as cluster:
                yield cluster.render(helm, rendering.WITHOUT_KEY, *settings)

    def replicas(self, live, *settings):
        """(replicas, annotation) of the sender, the same with both majors."""
        seen = set()
        for found in self.with_both([live] if live else [], *settings):
            sender = rendering.one(found, "Deployment", SENDER)
            seen.add((sender["spec"].get("replicas"), sender["metadata"]["annotations"]["staffetta.dev/replicas"]))
        (result,) = seen
        return result

    def test_a_first_installation_takes_the_number_of_the_values(self):
        self.assertEqual((4, "4"), self.replicas(None, "sender.replicas=4"))

    def test_what_kubectl_scale_set_is_kept_until_the_values_ask_for_another_number(self):
        self.assertEqual((8, "4"), self.replicas(deployment(8, "4"), "sender.replicas=4"))
        self.assertEqual((0, "4"), self.replicas(deployment(0, "4"), "sender.replicas=4"))
        self.assertEqual((6, "6"), self.replicas(deployment(8, "4"), "sender.replicas=6"))

    def test_a_number_that_was_never_rendered_is_never_rendered(self):
        self.assertEqual((None, "none"), self.replicas(None, "sender.replicas=null"))
        self.assertEqual((None, "none"), self.replicas(deployment(8, "none"), "sender.replicas=null"))

    def test_leaving_the_number_to_others_later_does_not_drop_to_one_pod(self):
        self.assertEqual((4, "live"), self.replicas(deployment(4, "4"), "sender.replicas=null"))
        self.assertEqual((7, "live"), self.replicas(deployment(7, "live"), "sender.replicas=null"))
        autoscaled = ("sender.replicas=4", "sender.autoscaling.kind=hpa")
        self.assertEqual((4, "live"), self.replicas(deployment(4, "4"), *autoscaled))
        self.assertEqual((9, "live"), self.replicas(deployment(9, "live"), *autoscaled))

    def test_the_autoscaler_may_be_switched_off_again(self):
        self.assertEqual((4, "4"), self.replicas(deployment(9, "live"), "sender.replicas=4"))

    def test_another_number_of_nats_servers_is_refused_with_the_reason(self):
        for servers, asked in ((1, 3), (3, 1)):
            with self.assertRaisesRegex(rendering.Refused, f"has {servers} and the values say {asked}"):
                list(self.with_both([nats(servers)], f"nats.replicas={asked}"))
        self.assertEqual(2, len(list(self.with_both([nats(3)], "nats.replicas=3"))))

    def test_servers_that_somebody_has_stopped_are_not_taken_for_another_number(self):
        with self.assertRaisesRegex(rendering.Refused, "scaled the StatefulSet staffetta-nats to 0"):
            list(self.with_both([nats(0)], "nats.replicas=1"))

    def test_another_number_of_nats_servers_than_left_volumes_have_is_refused_with_the_reason(self):
        """Uninstalling leaves the volumes; a server that joins a cluster deletes a store that was alone."""
        for left, asked in ((1, 3), (3, 1)):
            claims = [claim(number) for number in range(left)]
            with self.assertRaisesRegex(rendering.Refused, f"with {left} servers are there .* values say {asked}"):
                list(self.with_both(claims, f"nats.replicas={asked}"))
            self.assertEqual(2, len(list(self.with_both(claims, f"nats.replicas={left}"))))
        other = {**claim(0), "metadata": {**claim(0)["metadata"], "name": "data-other-staffetta-nats-0"}}
        self.assertEqual(2, len(list(self.with_both([other], "nats.replicas=3"))))

    def test_another_size_of_volumes_is_refused_with_the_reason(self):
        with self.assertRaisesRegex(rendering.Refused, "does not change the volumes"):
            list(self.with_both([nats(1)], "nats.persistence.size=30Gi"))
        with self.assertRaisesRegex(rendering.Refused, "does not change the volumes"):
            list(self.with_both([nats(1)], "nats.persistence.enabled=false"))

    def steps(self, found):
        jobs = [it["spec"]["template"]["spec"] for it in found if it["kind"] == "Job"]
        return [container["name"] for spec in jobs for container in rendering.containers(spec)]

    def test_an_upgrade_never_creates_an_installation_in_place_of_a_lost_one(self):
        for found in self.with_both([init_job(1)], "documents.a=x"):
            self.assertEqual(["apply"], self.steps(found))
        for found in self.with_both([init_job(1)]):
            self.assertEqual([], self.steps(found))
            remembered = rendering.one(found, "ConfigMap", "staffetta-created")
            for later in self.with_both([remembered]):
                self.assertEqual([], self.steps(later))
                rendering.one(later, "ConfigMap", "staffetta-created")
        for found in self.with_both([init_job(1)], "init.create=always"):
            self.assertEqual(["init"], self.steps(found))

    def test_an_installation_that_did_not_come_about_is_created_by_the_next_upgrade(self):
        for jobs in ([], [init_job(0)], [init_job(1, release="other")]):
            for found in self.with_both(jobs, "documents.a=x"):
                self.assertEqual(["init", "apply"], self.steps(found))

    def test_the_self_signed_certificate_is_kept(self):
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "staffetta-tls", "namespace": rendering.NAMESPACE},
            "data": {"tls.crt": "Y2VydA==", "tls.key": "a2V5"},
        }
        for found in self.with_both([secret], "tls.existingSecret="):
            self.assertEqual(secret["data"], rendering.one(found, "Secret", "staffetta-tls")["data"])

    def test_other_content_of_an_existing_configmap_is_applied(self):
        names = set()
        for text in ("a", "b", "b"):
            config = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "mine", "namespace": rendering.NAMESPACE},
                "data": {"all.yaml": text},
            }
            for found in self.with_both([config], "existingDocuments=mine"):
                names |= {it["metadata"]["name"] for it in found if it["kind"] == "Job"}
        self.assertEqual(2, len(names))


if __name__ == "__main__":
    unittest.main()
