"""Rules that every pod and policy of the chart keeps, whatever the values."""

import unittest

import rendering
import yaml

SERVICES = ("ingress", "signer", "scheduler", "sender", "feedback")


def component(labels):
    return labels["app.kubernetes.io/component"]


class Pods(unittest.TestCase):
    def every_pod(self):
        for values in rendering.VALUES:
            for name, labels, spec in rendering.pod_templates(rendering.objects(values)):
                yield values, name, labels, spec

    def test_pods_keep_to_the_restricted_pod_security_standard(self):
        for _, _, _, spec in self.every_pod():
            pod = spec["securityContext"]
            self.assertTrue(pod["runAsNonRoot"])
            self.assertGreater(pod["runAsUser"], 0)
            self.assertEqual("RuntimeDefault", pod["seccompProfile"]["type"])
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(field, spec)
            for volume in spec.get("volumes", []):
                kinds = set(volume) - {"name"}
                self.assertLessEqual(kinds, {"configMap", "secret", "emptyDir", "projected"})
            for container in rendering.containers(spec):
                security = container["securityContext"]
                self.assertFalse(security["allowPrivilegeEscalation"])
                self.assertTrue(security["readOnlyRootFilesystem"])
                self.assertTrue(security["runAsNonRoot"])
                self.assertEqual(["ALL"], security["capabilities"]["drop"])
                self.assertNotIn("add", security["capabilities"])
                for port in container.get("ports", []):
                    self.assertGreater(port["containerPort"], 1023)
                    self.assertNotIn("hostPort", port)

    def test_pods_have_a_service_account_of_their_own_and_no_token(self):
        for values, _, _, spec in self.every_pod():
            self.assertFalse(spec["automountServiceAccountToken"])
            self.assertFalse(spec["enableServiceLinks"])
            account = rendering.one(rendering.objects(values), "ServiceAccount", spec["serviceAccountName"])
            self.assertFalse(account["automountServiceAccountToken"])
        for values in rendering.VALUES:
            kinds = {it["kind"] for it in rendering.objects(values)}
            self.assertFalse(kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})

    def test_every_container_has_requests_and_a_memory_limit(self):
        for _, _, _, spec in self.every_pod():
            for container in rendering.containers(spec):
                self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]))
                self.assertIn("memory", container["resources"]["limits"])

    def test_liveness_asks_the_process_only_and_readiness_what_it_needs(self):
        for _, _, labels, spec in self.every_pod():
            if component(labels) not in SERVICES:
                continue
            (container,) = spec["containers"]
            self.assertEqual("/livez", container["livenessProbe"]["httpGet"]["path"])
            self.assertEqual("/livez", container["startupProbe"]["httpGet"]["path"])
            self.assertEqual("/readyz", container["readinessProbe"]["httpGet"]["path"])

    def test_nothing_of_ours_needs_a_shell(self):
        for _, _, labels, spec in self.every_pod():
            if component(labels) in (*SERVICES, "init"):
                for container in rendering.containers(spec):
                    self.assertNotIn("command", container)
                    self.assertNotIn("exec", container.get("lifecycle", {}).get("preStop", {}))

    def test_what_is_begun_may_be_finished_before_a_pod_is_killed(self):
        def grace(name):
            return rendering.one(rendering.objects(), "Deployment", name)["spec"]["template"]["spec"][
                "terminationGracePeriodSeconds"
            ]

        self.assertEqual((660, "640s"), (grace("staffetta-sender"), bootstrap("default")["sender"]["drainTimeout"]))
        self.assertEqual((45, "30s"), (grace("staffetta-ingress"), bootstrap("default")["ingress"]["drainTimeout"]))

    def test_private_keys_are_mounted_in_the_signer_only_and_never_by_subpath(self):
        seen = set()
        for values, _, labels, spec in self.every_pod():
            for container in rendering.containers(spec):
                for mount in container.get("volumeMounts", []):
                    self.assertNotIn("subPath", mount)
                    if mount["mountPath"].startswith("/etc/staffetta/dkim/"):
                        self.assertEqual("signer", component(labels))
                        self.assertTrue(mount["readOnly"])
                        seen.add((values, mount["mountPath"]))
        self.assertEqual({("existing", f"/etc/staffetta/dkim/dkim-example.{top}") for top in ("com", "net")}, seen)

    def test_further_certificates_are_mounted_where_listeners_look_for_them(self):
        (pod,) = [
            spec
            for name, _, spec in rendering.pod_templates(rendering.objects("existing"))
            if name == "Deployment/staffetta-ingress"
        ]
        paths = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        for listener in bootstrap("existing")["ingress"]["listeners"]:
            (more,) = listener["certificates"]
            folders = {more[name].rpartition("/")[0] for name in ("certificate", "key")}
            self.assertEqual({"/etc/staffetta/tls-more/mail.example.net"}, folders)
            self.assertLessEqual(folders, paths)

    def test_schedulers_answer_outside_only_when_asked_to_and_with_files_that_are_mounted(self):
        self.assertNotIn("admin", bootstrap("default")["scheduler"])
        admin = bootstrap("proxy")["scheduler"]["admin"]
        found = rendering.objects("proxy")
        for name, labels, spec in rendering.pod_templates(found):
            for container in rendering.containers(spec):
                paths = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
                self.assertEqual(component(labels) == "scheduler", "/etc/staffetta/admin" in paths, name)
        folder = {admin[name].rpartition("/")[0] for name in ("certificate", "key", "clientAuthorities")}
        self.assertEqual({"/etc/staffetta/admin"}, folder)
        service = rendering.one(found, "Service", "staffetta-admin")["spec"]
        self.assertEqual((7443, "admin"), (service["ports"][0]["port"], service["ports"][0]["targetPort"]))
        rules = rendering.one(found, "NetworkPolicy", "staffetta-scheduler")["spec"]["ingress"]
        self.assertEqual([{"ports": [{"protocol": "TCP", "port": "admin"}]}], [it for it in rules if "from" not in it])
        for values in ("default", "dev", "ha"):
            names = [it["metadata"]["name"] for it in rendering.objects(values)]
            self.assertNotIn("staffetta-admin", names)

    def test_a_change_of_the_bootstrap_file_starts_new_pods(self):
        def checksum(found):
            sender = rendering.one(found, "Deployment", "staffetta-sender")
            return sender["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

        plain = checksum(rendering.rendered_with())
        self.assertEqual(plain, checksum(rendering.rendered_with("sender.replicas=9")))
        self.assertNotEqual(plain, checksum(rendering.rendered_with("sender.credit=9")))

    def test_ingress_divides_quotas_by_the_pods_that_there_may_be(self):
        def share(*settings):
            found = rendering.rendered_with(*settings)
            return yaml.safe_load(rendering.one(found, "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"])[
                "ingress"
            ]["replicas"]

        self.assertEqual(2, share())
        self.assertEqual(5, share("ingress.replicas=5"))
        self.assertEqual(1, share("ingress.replicas=0"))
        self.assertEqual(10, share("ingress.autoscaling.kind=hpa"))
        self.assertEqual(7, share("ingress.replicas=null", "ingress.autoscaling.maxReplicas=7"))
        self.assertEqual(12, share("ingress.replicas=5", "ingress.quotaReplicas=12"))

    def test_another_number_of_ingress_replaces_no_other_pods_and_applies_nothing(self):
        def seen(*settings):
            found = rendering.rendered_with(*settings)
            checksums = {
                it["metadata"]["name"]: it["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
                for it in found
                if it["kind"] == "Deployment" and it["metadata"]["name"] != "staffetta-redis"
            }
            return checksums, [it["metadata"]["name"] for it in found if it["kind"] == "Job"]

        (before, jobs), (after, jobs_after) = seen(), seen("ingress.replicas=5")
        self.assertEqual({"staffetta-ingress"}, {name for name in before if before[name] != after[name]})
        self.assertEqual(jobs, jobs_after)

    def test_nodes_that_take_no_pods_do_not_count_when_pods_are_spread(self):
        """Beside a control plane, which has none, a worker would take one NATS server only."""
        for _, _, _, spec in self.every_pod():
            for constraint in spec.get("topologySpreadConstraints", []):
                self.assertEqual("Honor", constraint["nodeTaintsPolicy"])

    def test_files_for_stores_outside_are_where_the_configuration_looks_for_them(self):
        nats, redis = bootstrap("existing")["nats"], bootstrap("existing")["redis"]
        wanted = {nats["credentials"], nats["authorities"], redis["authorities"]}
        for name, labels, spec in rendering.pod_templates(rendering.objects("existing")):
            for container in rendering.containers(spec):
                paths = {mount["mountPath"] for mount in container["volumeMounts"]}
                self.assertLessEqual({path.rpartition("/")[0] for path in wanted}, paths, name)
        self.assertEqual({"nats.creds", "ca.crt"}, {path.rpartition("/")[2] for path in wanted})

    def test_several_servers_of_redis_can_be_named(self):
        servers = "redis://redis-0.redis:6379,redis://redis-1.redis:6379"
        found = rendering.rendered_with("redis.enabled=false", "redis.url=" + servers.replace(",", "\\,"))
        for name, _, spec in rendering.pod_templates(found):
            for container in rendering.containers(spec):
                for variable in container.get("env", []):
                    if variable["name"] == "REDIS_URL":
                        self.assertEqual(servers, variable["value"], name)
        self.assertIn(servers, str(found))

    def test_selectors_hold_nothing_that_changes_in_the_life_of_a_release(self):
        for values in rendering.VALUES:
            for it in rendering.objects(values):
                if it["kind"] in ("Deployment", "StatefulSet"):
                    labels = it["spec"]["selector"]["matchLabels"]
                    wanted = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
                    self.assertEqual(wanted, set(labels))


class Around(unittest.TestCase):
    def test_each_budget_selects_pods_of_one_workload_and_lets_nodes_drain(self):
        for values in rendering.VALUES:
            found = rendering.objects(values)
            budgets = [it for it in found if it["kind"] == "PodDisruptionBudget"]
            for budget in budgets:
                selector = budget["spec"]["selector"]
                chosen = [
                    name for name, labels, _ in rendering.pod_templates(found) if rendering.selects(selector, labels)
                ]
                self.assertEqual(1, len(chosen), budget["metadata"]["name"])
                self.assertEqual("AlwaysAllow", budget["spec"]["unhealthyPodEvictionPolicy"])
                self.assertNotIn("minAvailable", budget["spec"])
        self.assertEqual([], [it for it in rendering.objects("hpa") if it["kind"] == "PodDisruptionBudget"])

    def test_each_service_finds_a_port_of_the_pods_that_it_selects(self):
        for values in rendering.VALUES:
            found = rendering.objects(values)
            for service in (it for it in found if it["kind"] == "Service"):
                selector = {"matchLabels": service["spec"]["selector"]}
                chosen = [
                    spec for _, labels, spec in rendering.pod_templates(found) if rendering.selects(selector, labels)
                ]
                self.assertEqual(1, len(chosen), service["metadata"]["name"])
                names = {port["name"] for it in chosen[0]["containers"] for port in it.get("ports", [])}
                for port in service["spec"]["ports"]:
                    target = port.get("targetPort", port["port"])
                    self.assertTrue(isinstance(target, int) or target in names, service["metadata"]["name"])

    def test_replicas_are_left_to_an_autoscaler(self):
        for values in rendering.VALUES:
            found = rendering.objects(values)
            for it in found:
                target = it.get("spec", {}).get("scaleTargetRef")
                if target:
                    self.assertEqual("Deployment", target.get("kind", "Deployment"))
                    scaled = rendering.one(found, "Deployment", target["name"])
                    self.assertNotIn("replicas", scaled["spec"])

    def test_senders_scale_on_what_can_be_sent_and_never_on_what_waits(self):
        wanted = {"staffetta_scheduler_sendable_deliveries", "staffetta_sender_deliveries_in_flight"}
        hpa = rendering.one(rendering.objects("hpa"), "HorizontalPodAutoscaler", "staffetta-sender")
        self.assertEqual(wanted, {metric["external"]["metric"]["name"] for metric in hpa["spec"]["metrics"]})
        scaled = rendering.one(rendering.objects("proxy"), "ScaledObject", "staffetta-sender")
        queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
        self.assertEqual(wanted, {query.removeprefix("sum(").split("{")[0] for query in queries})

    def test_the_metrics_that_senders_scale_on_are_in_the_code(self):
        sources = "".join(path.read_text() for path in (rendering.ROOT / "services").glob("*/src/metrics.rs"))
        hpa = rendering.one(rendering.objects("hpa"), "HorizontalPodAutoscaler", "staffetta-sender")
        for metric in hpa["spec"]["metrics"]:
            self.assertIn(f'"{metric["external"]["metric"]["name"]}"', sources)

    def test_the_smtp_service_keeps_clients_addresses_and_has_the_three_ports(self):
        service = rendering.one(rendering.objects(), "Service", "staffetta-smtp")["spec"]
        self.assertEqual(("LoadBalancer", "Local"), (service["type"], service["externalTrafficPolicy"]))
        self.assertEqual(
            {25: "relay", 587: "submission", 465: "submissions"},
            {it["port"]: it["targetPort"] for it in service["ports"]},
        )

    def test_a_listener_with_proxy_headers_is_behind_the_service_for_them_only(self):
        found = rendering.objects("proxy")
        plain = rendering.one(found, "Service", "staffetta-smtp")["spec"]["ports"]
        proxied = rendering.one(found, "Service", "staffetta-smtp-proxy")["spec"]["ports"]
        self.assertEqual(["proxied"], [it["targetPort"] for it in proxied])
        self.assertNotIn("proxied", [it["targetPort"] for it in plain])
        (listener,) = [it for it in bootstrap("proxy")["ingress"]["listeners"] if it["name"] == "proxied"]
        self.assertEqual(["10.0.0.0/8", "fd00::/8"], listener["proxyProtocol"]["trusted"])

    def test_grpc_services_are_headless(self):
        for name in ("signer", "scheduler"):
            self.assertEqual(
                "None", rendering.one(rendering.objects(), "Service", f"staffetta-{name}")["spec"]["clusterIP"]
            )

    def test_a_monitor_carries_the_labels_that_prometheus_looks_for(self):
        monitor = rendering.one(rendering.objects("proxy"), "PodMonitor", "staffetta")
        self.assertEqual("kube-prometheus-stack", monitor["metadata"]["labels"]["release"])
        found = rendering.objects("proxy")
        chosen = {
            component(labels)
            for _, labels, _ in rendering.pod_templates(found)
            if rendering.selects(monitor["spec"]["selector"], labels)
        }
        self.assertEqual(set(SERVICES), chosen)

    def test_nothing_but_the_helm_test_is_a_hook(self):
        """A hook that waits for services, or services for a hook, would dead-lock under --wait."""
        for values in rendering.VALUES:
            for it in rendering.objects(values):
                hook = it["metadata"].get("annotations", {}).get("helm.sh/hook")
                self.assertIn(hook, (None, "test"))
                self.assertEqual(hook == "test", it["metadata"]["name"] == "staffetta-test")


class NatsServers(unittest.TestCase):
    def test_three_servers_know_each_other_and_hold_three_copies(self):
        found = rendering.objects("ha")
        config = rendering.one(found, "ConfigMap", "staffetta-nats")["data"]["nats.conf"]
        for number in range(3):
            self.assertIn(f"staffetta-nats-{number}.staffetta-nats-headless.mail.svc.cluster.local:6222", config)
        self.assertEqual(3, bootstrap("ha")["storage"]["replicas"])
        self.assertEqual(3, rendering.one(found, "StatefulSet", "staffetta-nats")["spec"]["replicas"])

    def test_what_is_acknowledged_is_flushed_and_volumes_outlive_the_release(self):
        for values in ("default", "ha"):
            found = rendering.objects(values)
            self.assertIn(
                'sync_interval: "always"', rendering.one(found, "ConfigMap", "staffetta-nats")["data"]["nats.conf"]
            )
            retention = rendering.one(found, "StatefulSet", "staffetta-nats")["spec"][
                "persistentVolumeClaimRetentionPolicy"
            ]
            self.assertEqual({"whenDeleted": "Retain", "whenScaled": "Retain"}, retention)


class Installing(unittest.TestCase):
    def job(self, found):
        (job,) = [it for it in found if it["kind"] == "Job"]
        return job

    def test_the_job_creates_then_applies_and_prunes_what_the_documents_do_not_name(self):
        spec = self.job(rendering.objects("dev"))["spec"]["template"]["spec"]
        (init,), (apply,) = spec["initContainers"], spec["containers"]
        self.assertEqual("init", init["args"][0])
        self.assertEqual("apply", apply["args"][0])
        self.assertIn("--prune", apply["args"])
        self.assertNotIn(
            "--prune", self.job(rendering.objects("existing"))["spec"]["template"]["spec"]["containers"][0]["args"]
        )

    def test_any_change_of_what_the_job_does_makes_a_new_job(self):
        """A Job can't be changed; one that did the same before is left alone."""
        plain = self.job(rendering.rendered_with())["metadata"]["name"]
        same = self.job(rendering.rendered_with("sender.replicas=9", "commonAnnotations.a=b"))["metadata"]["name"]
        self.assertEqual(plain, same)
        settings = (
            "documents.a=x",
            "image.tag=next",
            "init.resources.limits.memory=1Gi",
            "partitions=5",
            "init.backoffLimit=3",
        )
        names = {self.job(rendering.rendered_with(setting))["metadata"]["name"] for setting in settings}
        self.assertEqual(len(settings), len(names - {plain}))

    def test_without_creating_and_documents_there_is_no_job(self):
        self.assertFalse([it for it in rendering.rendered_with("init.create=never") if it["kind"] == "Job"])


class Network(unittest.TestCase):
    def test_every_pod_is_denied_everything_but_what_a_policy_allows(self):
        for values in set(rendering.VALUES) - {"hpa"}:
            found = rendering.objects(values)
            policies = [it for it in found if it["kind"] == "NetworkPolicy"]
            deny = rendering.one(found, "NetworkPolicy", "staffetta-default")
            self.assertNotIn("ingress", deny["spec"])
            self.assertEqual(["Ingress", "Egress"], deny["spec"]["policyTypes"])
            for _, labels, _ in rendering.pod_templates(found):
                self.assertTrue(rendering.selects(deny["spec"]["podSelector"], labels))
            for policy in policies:
                chosen = [
                    1
                    for _, labels, _ in rendering.pod_templates(found)
                    if rendering.selects(policy["spec"]["podSelector"], labels)
                ]
                self.assertTrue(chosen, policy["metadata"]["name"])

    def test_senders_and_nobody_else_reach_mail_hosts_outside_and_never_private_networks(self):
        for it in rendering.objects():
            if it["kind"] != "NetworkPolicy":
                continue
            outside = [
                rule for rule in it["spec"].get("egress", []) if any("ipBlock" in peer for peer in rule.get("to", []))
            ]
            if it["metadata"]["name"] != "staffetta-sender":
                self.assertEqual([], outside)
                continue
            (rule,) = outside
            self.assertEqual([25, 443], [port["port"] for port in rule["ports"]])
            v4, v6 = (peer["ipBlock"] for peer in rule["to"])
            private = {
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "169.254.0.0/16",
                "100.64.0.0/10",
                "127.0.0.0/8",
            }
            self.assertLessEqual(private, set(v4["except"]))
            self.assertLessEqual({"fc00::/7", "fe80::/10", "::1/128"}, set(v6["except"]))

    def test_every_connection_that_services_need_is_allowed_at_both_ends(self):
        """From, to, port: as the services call each other."""
        needed = [
            *((service, "nats", port) for service in (*SERVICES, "init") for port in (4222, 8222)),
            *((service, "redis", 6379) for service in SERVICES),
            ("sender", "signer", 7102),
            ("sender", "scheduler", 7103),
            ("scheduler", "scheduler", 7103),
            ("init", "scheduler", 7103),
            ("test", "scheduler", 7103),
            ("test", "ingress", 2525),
            ("sender", "test", 2500),
            ("nats", "nats", 6222),
        ]
        found = rendering.objects("ha")
        pods = {component(labels): (labels, spec) for _, labels, spec in rendering.pod_templates(found)}
        for source, target, port in needed:
            with self.subTest(source=source, target=target, port=port):
                self.assertTrue(allowed(found, pods, source, target, port, "egress"))
                self.assertTrue(allowed(found, pods, source, target, port, "ingress"))
        for source, target, port in [
            ("ingress", "signer", 7102),
            ("feedback", "scheduler", 7103),
            ("redis", "nats", 4222),
            ("sender", "sender", 9104),
        ]:
            with self.subTest(source=source, target=target, port=port):
                self.assertFalse(allowed(found, pods, source, target, port, "ingress"))


def allowed(found, pods, source, target, port, direction):
    """Whether some policy lets a pod of component `source` connect to one of `target`, seen from one end."""
    end, other = (source, target) if direction == "egress" else (target, source)
    labels, spec = pods[target]
    numbers = {it["name"]: it["containerPort"] for container in spec["containers"] for it in container.get("ports", [])}
    for policy in (it["spec"] for it in found if it["kind"] == "NetworkPolicy"):
        if not rendering.selects(policy["podSelector"], pods[end][0]):
            continue
        for rule in policy.get(direction, []):
            ports = [numbers.get(it["port"], it["port"]) for it in rule.get("ports", [])]
            peers = rule.get("to" if direction == "egress" else "from")
            fits = peers is None or any(
                "podSelector" in peer and rendering.selects(peer["podSelector"], pods[other][0]) for peer in peers
            )
            if fits and (not ports or port in ports):
                return True
    return False


def bootstrap(values):
    text = rendering.one(rendering.objects(values), "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"]
    return yaml.safe_load(text)


if __name__ == "__main__":
    unittest.main()
