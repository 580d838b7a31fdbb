{{/* What all pods have in common. */}}

{{/* Pod Security "restricted". */}}
{{- define "staffetta.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "staffetta.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Pods do without the Kubernetes API. dict root, component */}}
{{- define "staffetta.podIdentity" -}}
serviceAccountName: {{ include "staffetta.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where pods go. dict root, component, pod, and update: whether a pod-template-hash label tells revisions apart */}}
{{- define "staffetta.placement" -}}
{{- $selector := include "staffetta.selector" . -}}
topologySpreadConstraints:
{{- if .pod.topologySpreadConstraints }}
  {{- toYaml .pod.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    {{- if $.update }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of a pod. dict root, component, pod, annotations, metrics (port or 0) */}}
{{- define "staffetta.podMetadata" -}}
labels:
  {{- include "staffetta.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: staffetta
  {{- with merge (dict) (.pod.labels | default dict) .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) (.pod.annotations | default dict) .root.Values.commonAnnotations }}
{{- if and .metrics .root.Values.scrapeAnnotations }}
{{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .metrics) "prometheus.io/path" "/metrics") }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The line `replicas:` of a Deployment, or nothing. dict root, component, replicas, autoscaling (whether an autoscaler is
on).

What others made of the number (kubectl scale, an autoscaler) stays: Helm 3 would silently set it back, Helm 4 fail with
a conflict. An annotation remembers what the chart asked for the last time:

  a number  that number was asked for; as long as the values say the same, the live number is kept
  live      a number was rendered once and the values leave it to others now. Rendering none would make Helm remove the
            field, which means one pod, so the live number is kept
  none      no number was ever rendered, and none has to be

`helm template` and tools that render without a cluster see no live object: they get the number of the values.
*/}}
{{- define "staffetta.replicas" -}}
{{- $leftToOthers := or .autoscaling (kindIs "invalid" .replicas) -}}
{{- $name := printf "%s-%s" (include "staffetta.fullname" .root) .component -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace $name -}}
{{- $before := dig "metadata" "annotations" "staffetta.dev/replicas" "none" ($live | default dict) -}}
{{- $state := dict "annotation" "none" -}}
{{- if not $leftToOthers -}}
{{- $asked := toString (int .replicas) -}}
{{- $number := ternary (dig "spec" "replicas" 0 ($live | default dict)) .replicas (eq $before $asked) -}}
{{- $state = dict "annotation" $asked "number" (int $number) -}}
{{- else if ne $before "none" -}}
{{- $state = dict "annotation" "live" "number" (int $live.spec.replicas) -}}
{{- end -}}
{{- toJson $state -}}
{{- end -}}

{{/*
The Deployment of a service. dict:
  root, component
  values       the component's section of the values
  grpc         port of gRPC, or 0
  metrics      port of health and metrics
  ports        further ports of the container, a list
  volumes, mounts   of its own
  env          a list
*/}}
{{- define "staffetta.deployment" -}}
{{- $root := .root -}}
{{- $pod := .values.pod | default dict -}}
{{- $autoscaling := ne (dig "autoscaling" "kind" "none" .values) "none" -}}
{{- $replicas := include "staffetta.replicas" (dict "root" $root "component" .component "replicas" .values.replicas "autoscaling" $autoscaling) | fromJson -}}
{{- $scope := dict "root" $root "component" .component "pod" $pod "update" true "metrics" .metrics -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "staffetta.metadata" (dict "root" $root "component" .component "annotations" (dict "staffetta.dev/replicas" $replicas.annotation)) | nindent 2 }}
spec:
  {{- if hasKey $replicas "number" }}
  replicas: {{ $replicas.number }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxSurge: 25%, maxUnavailable: 0 }
  selector:
    matchLabels:
      {{- include "staffetta.selector" . | nindent 6 }}
  template:
    metadata:
      {{- $read := ternary "staffetta.bootstrap" "staffetta.bootstrapOfOthers" (eq .component "ingress") }}
      {{- $checksums := dict "checksum/config" (include $read $root | sha256sum) }}
      {{- include "staffetta.podMetadata" (merge (dict "annotations" $checksums) $scope) | nindent 6 }}
    spec:
      {{- include "staffetta.podIdentity" $scope | nindent 6 }}
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      securityContext:
        {{- include "staffetta.podSecurity" . | nindent 8 }}
      {{- include "staffetta.placement" $scope | nindent 6 }}
      containers:
        - name: {{ .component }}
          image: {{ include "staffetta.image" (dict "root" $root "image" $root.Values.image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [run, {{ .component }}]
          env:
            {{- include "staffetta.env" $root | nindent 12 }}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- with $pod.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - { name: metrics, containerPort: {{ .metrics }} }
            {{- with .grpc }}
            - { name: grpc, containerPort: {{ . }} }
            {{- end }}
            {{- range .ports }}
            - { name: {{ .name }}, containerPort: {{ .port }} }
            {{- end }}
          # Alive as long as the process answers: NATS or Redis being away is no reason to restart it.
          startupProbe:
            httpGet: { path: /livez, port: metrics }
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: { path: /livez, port: metrics }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: { path: /readyz, port: metrics }
            periodSeconds: 2
            timeoutSeconds: 3
            failureThreshold: 2
          {{- with .values.preStopSleepSeconds }}
          lifecycle:
            preStop: { sleep: { seconds: {{ . }} } }
          {{- end }}
          securityContext:
            {{- include "staffetta.containerSecurity" . | nindent 12 }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - { name: config, mountPath: /etc/staffetta/config, readOnly: true }
            {{- with include "staffetta.storeMounts" $root | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with .mounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- with $pod.volumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap: { name: {{ include "staffetta.fullname" $root }}-config }
        {{- with include "staffetta.storeVolumes" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $pod.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}

{{/* ServiceAccount and disruption budget of a component. dict root, component, values */}}
{{- define "staffetta.around" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "staffetta.metadata" (dict "root" .root "component" .component "annotations" (dig "pod" "serviceAccountAnnotations" dict .values)) | nindent 2 }}
automountServiceAccountToken: false
{{- /* With one pod, at most one away is no hindrance to draining its node. */}}
{{- if .root.Values.podDisruptionBudgets.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "staffetta.metadata" (dict "root" .root "component" .component) | nindent 2 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudgets.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "staffetta.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
