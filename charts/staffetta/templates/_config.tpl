{{/* staffetta.yaml, and the environment that it refers to. */}}

{{- define "staffetta.natsUrl" -}}
{{- if .Values.nats.enabled -}}
{{- $user := ternary "$(NATS_USERNAME):$(NATS_PASSWORD)@" "" (ne .Values.nats.authSecret "") -}}
{{- printf "nats://%s%s:4222" $user (include "staffetta.host" (dict "root" . "name" "nats")) -}}
{{- else if .Values.nats.url -}}
{{- .Values.nats.url -}}
{{- else if not .Values.nats.existingSecret -}}
{{- fail "nats.enabled is false: nats.url or nats.existingSecret must name another NATS" -}}
{{- end -}}
{{- end -}}

{{- define "staffetta.natsMonitor" -}}
{{- if .Values.nats.enabled -}}
{{- printf "http://%s:8222" (include "staffetta.host" (dict "root" . "name" "nats")) -}}
{{- else -}}
{{- .Values.nats.monitor -}}
{{- end -}}
{{- end -}}

{{- define "staffetta.redisUrl" -}}
{{- if .Values.redis.enabled -}}
{{- $user := ternary ":$(REDIS_PASSWORD)@" "" (ne .Values.redis.authSecret "") -}}
{{- printf "redis://%s%s:6379" $user (include "staffetta.host" (dict "root" . "name" "redis")) -}}
{{- else if .Values.redis.url -}}
{{- .Values.redis.url -}}
{{- else if not .Values.redis.existingSecret -}}
{{- fail "redis.enabled is false: redis.url or redis.existingSecret must name another Redis" -}}
{{- end -}}
{{- end -}}

{{- define "staffetta.replicasOfStreams" -}}
{{- if .Values.storage.replicas -}}
{{- .Values.storage.replicas -}}
{{- else -}}
{{- ternary .Values.nats.replicas 1 .Values.nats.enabled -}}
{{- end -}}
{{- end -}}

{{/* Secrets with files that show us to NATS and Redis outside of the release, and them to us: folder and Secret, as JSON. */}}
{{- define "staffetta.storeSecrets" -}}
{{- $found := dict -}}
{{- if not .Values.nats.enabled -}}
{{- with .Values.nats.credentialsSecret -}}{{- $_ := set $found "nats-credentials" . -}}{{- end -}}
{{- with .Values.nats.caSecret -}}{{- $_ := set $found "nats-ca" . -}}{{- end -}}
{{- end -}}
{{- if not .Values.redis.enabled -}}
{{- with .Values.redis.caSecret -}}{{- $_ := set $found "redis-ca" . -}}{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "staffetta.storeVolumes" -}}
{{- range $folder, $secret := include "staffetta.storeSecrets" . | fromJson }}
- name: {{ $folder }}
  secret: { secretName: {{ $secret }}, defaultMode: 288 }
{{- end }}
{{- end -}}

{{- define "staffetta.storeMounts" -}}
{{- range $folder, $_ := include "staffetta.storeSecrets" . | fromJson }}
- { name: {{ $folder }}, mountPath: /etc/staffetta/{{ $folder }}, readOnly: true }
{{- end }}
{{- end -}}

{{/* What differs from pod to pod, or is secret, comes from the environment. */}}
{{- define "staffetta.env" -}}
- { name: STAFFETTA_CONFIG, value: /etc/staffetta/config/staffetta.yaml }
- { name: STAFFETTA_LOG, value: {{ .Values.log | quote }} }
- { name: STAFFETTA_LOG_FORMAT, value: json }
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
{{- if and .Values.nats.enabled .Values.nats.authSecret }}
{{- range list "username" "password" }}
- name: NATS_{{ upper . }}
  valueFrom: { secretKeyRef: { name: {{ $.Values.nats.authSecret }}, key: {{ . }} } }
{{- end }}
{{- end }}
- name: NATS_URL
{{- if or .Values.nats.enabled (not .Values.nats.existingSecret) }}
  value: {{ include "staffetta.natsUrl" . | quote }}
{{- else }}
  valueFrom: { secretKeyRef: { name: {{ .Values.nats.existingSecret }}, key: url } }
{{- end }}
{{- if and .Values.redis.enabled .Values.redis.authSecret }}
- name: REDIS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.authSecret }}, key: password } }
{{- end }}
- name: REDIS_URL
{{- if or .Values.redis.enabled (not .Values.redis.existingSecret) }}
  value: {{ include "staffetta.redisUrl" . | quote }}
{{- else }}
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.existingSecret }}, key: url } }
{{- end }}
{{- end -}}

{{/*
Pods of ingress that share the quotas while Redis is away. Of the values alone: the live number would put another
configuration into all pods each time that somebody scales.
*/}}
{{- define "staffetta.ingressShare" -}}
{{- with .Values.ingress -}}
{{- if .quotaReplicas -}}
{{- int .quotaReplicas -}}
{{- else if or (ne .autoscaling.kind "none") (kindIs "invalid" .replicas) -}}
{{- int .autoscaling.maxReplicas -}}
{{- else -}}
{{- max 1 (int .replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What all but ingress read of staffetta.yaml: another number of ingress is no reason to replace their pods. */}}
{{- define "staffetta.bootstrapOfOthers" -}}
{{- regexReplaceAll "(?m)^  replicas: [0-9]+\n" (include "staffetta.bootstrap" .) "" -}}
{{- end -}}

{{- define "staffetta.bootstrap" -}}
{{- $volume := .Values.storage.volumeBytes | default (include "staffetta.size" .Values.nats.persistence.size) -}}
{{- $bind := .Values.bindAddress -}}
hostname: {{ include "staffetta.hostname" . }}
nats:
  url: "${NATS_URL}"
  {{- with include "staffetta.natsMonitor" . }}
  monitor: {{ . | quote }}
  {{- end }}
  {{- range $field, $file := dict "credentials" "nats-credentials/nats.creds" "authorities" "nats-ca/ca.crt" }}
  {{- if has (dir $file) (include "staffetta.storeSecrets" $ | fromJson | keys) }}
  {{ $field }}: /etc/staffetta/{{ $file }}
  {{- end }}
  {{- end }}
redis:
  url: "${REDIS_URL}"
  {{- if hasKey (include "staffetta.storeSecrets" . | fromJson) "redis-ca" }}
  authorities: /etc/staffetta/redis-ca/ca.crt
  {{- end }}
durability: {{ .Values.durability }}
partitions: {{ .Values.partitions }}
storage: { volumeBytes: {{ $volume }}, replicas: {{ include "staffetta.replicasOfStreams" . }}{{ with .Values.storage.transcripts }}, transcripts: {{ toJson . }}{{ end }} }
{{- with .Values.resolvers }}
resolvers: {{ toJson . }}
{{- end }}
{{- if .Values.tokens.secret }}
tokens: { keys: /etc/staffetta/tokens/keys, lifetime: {{ .Values.tokens.lifetime }} }
{{- end }}
{{- with .Values.tlsReports }}
tlsReports: {{ toJson . }}
{{- end }}
ingress:
  metrics: "{{ $bind }}:9101"
  bodyMemory: {{ .Values.ingress.bodyMemory }}
  replicas: {{ include "staffetta.ingressShare" . }}
  failedLogins: {{ .Values.ingress.failedLogins }}
  {{- with .Values.ingress.forwarding }}
  forwarding: {{ toJson . }}
  {{- end }}
  # The sleep before the stop is part of the grace period.
  drainTimeout: {{ max 1 (sub (int .Values.ingress.terminationGracePeriodSeconds) (add (int .Values.ingress.preStopSleepSeconds) 10)) }}s
  listeners:
    {{- range $name, $listener := .Values.ingress.listeners }}
    {{- if $listener.enabled }}
    - name: {{ $name }}
      kind: submission
      address: "{{ $bind }}:{{ $listener.port }}"
      tls: {{ $listener.tls }}
      {{- if ne $listener.tls "none" }}
      certificate: /etc/staffetta/tls/tls.crt
      key: /etc/staffetta/tls/tls.key
      {{- with $.Values.tls.moreSecrets }}
      certificates:
        {{- range . }}
        - { certificate: /etc/staffetta/tls-more/{{ . }}/tls.crt, key: /etc/staffetta/tls-more/{{ . }}/tls.key }
        {{- end }}
      {{- end }}
      {{- end }}
      {{- with $listener.proxyFrom }}
      proxyProtocol: { trusted: {{ toJson . }} }
      {{- end }}
      {{- with $listener.options }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
    {{- end }}
signer:
  listen: "{{ $bind }}:7102"
  metrics: "{{ $bind }}:9102"
  threads: {{ .Values.signer.threads }}
scheduler:
  listen: "{{ $bind }}:7103"
  advertise: "${POD_IP}:7103"
  metrics: "{{ $bind }}:9103"
  {{- if .Values.scheduler.admin.enabled }}
  admin: { listen: "{{ $bind }}:7443", certificate: /etc/staffetta/admin/tls.crt, key: /etc/staffetta/admin/tls.key, clientAuthorities: /etc/staffetta/admin/ca.crt }
  {{- end }}
sender:
  signers: ["http://{{ include "staffetta.host" (dict "root" . "name" "signer") }}:7102"]
  metrics: "{{ $bind }}:9104"
  credit: {{ .Values.sender.credit }}
  {{- with .Values.sender.sources }}
  sources: {{ toJson . }}
  {{- end }}
  {{- with .Values.sender.mtaSts }}
  mtaSts: {{ toJson . }}
  {{- end }}
  {{- with .Values.sender.transcripts }}
  transcripts: {{ toJson . }}
  {{- end }}
  {{- with .Values.sender.dane }}
  dane: {{ toJson . }}
  {{- end }}
  {{- with .Values.sender.domainChecks }}
  domainChecks: {{ toJson . }}
  {{- end }}
  {{- with .Values.sender.authorities }}
  authorities: {{ . }}
  {{- end }}
  # What is left of the grace period is for the last reports to be stored.
  drainTimeout: {{ max 1 (sub (int .Values.sender.terminationGracePeriodSeconds) 20) }}s
feedback:
  metrics: "{{ $bind }}:9105"
  {{- with .Values.feedback.links }}
  {{- if .enabled }}
  links:
    listen: "{{ $bind }}:8443"
    maxConnections: {{ .maxConnections }}
    maxConnectionsPerClient: {{ .maxConnectionsPerClient }}
    {{- with .certificateSecrets }}
    certificates:
      {{- range . }}
      - { certificate: /etc/staffetta/links/{{ . }}/tls.crt, key: /etc/staffetta/links/{{ . }}/tls.key }
      {{- end }}
    {{- end }}
    {{- with .proxies }}
    proxies: {{ toJson . }}
    {{- end }}
  {{- end }}
  {{- end }}
{{- end -}}
