{{/* Names, labels, images. */}}

{{- define "staffetta.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that names with what is appended to them stay below 63. */}}
{{- define "staffetta.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "staffetta.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What pods are selected by; never changes in the life of a release. */}}
{{- define "staffetta.releaseLabels" -}}
app.kubernetes.io/name: {{ include "staffetta.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* dict root, component */}}
{{- define "staffetta.selector" -}}
{{ include "staffetta.releaseLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. dict root, component */}}
{{- define "staffetta.labels" -}}
{{ include "staffetta.selector" . }}
app.kubernetes.io/part-of: staffetta
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, labels and annotations of an object. dict root, component, and optionally name and annotations */}}
{{- define "staffetta.metadata" -}}
name: {{ .name | default (printf "%s-%s" (include "staffetta.fullname" .root) .component) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "staffetta.labels" . | nindent 2 }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* dict root, image */}}
{{- define "staffetta.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The DNS name of a Service of the release. dict root, name (what comes after the prefix) */}}
{{- define "staffetta.host" -}}
{{- printf "%s-%s.%s.svc.%s" (include "staffetta.fullname" .root) .name .root.Release.Namespace .root.Values.clusterDomain -}}
{{- end -}}

{{/* A Kubernetes quantity such as 20Gi as our size, 20GiB. */}}
{{- define "staffetta.size" -}}
{{- if not (regexMatch "^[0-9]+(Mi|Gi|Ti)$" .) -}}
{{- fail (printf "nats.persistence.size: a whole number of Mi, Gi or Ti is expected, found %q" .) -}}
{{- end -}}
{{- printf "%sB" . -}}
{{- end -}}

{{/* The Secret with the certificate of the SMTP listeners. */}}
{{- define "staffetta.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "staffetta.fullname" .)) -}}
{{- end -}}

{{- define "staffetta.hostname" -}}
{{- .Values.hostname | default (include "staffetta.host" (dict "root" . "name" "smtp")) -}}
{{- end -}}

{{/* Whether a listener needs a certificate: "true" or nothing. */}}
{{- define "staffetta.needsTls" -}}
{{- range .Values.ingress.listeners -}}
{{- if and .enabled (ne .tls "none") -}}true{{- end -}}
{{- end -}}
{{- end -}}
