{{/*
A headless Service: its name resolves to the addresses of all ready pods, among which clients balance themselves.
dict root, component, port
*/}}
{{- define "staffetta.headless" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "staffetta.metadata" (dict "root" .root "component" .component) | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "staffetta.selector" . | nindent 4 }}
  ports:
    - { name: grpc, port: {{ .port }}, targetPort: grpc }
{{- end -}}

{{/* A HorizontalPodAutoscaler on CPU, when it is asked for. dict root, component, values */}}
{{- define "staffetta.cpuAutoscaler" -}}
{{- with .values.autoscaling }}
{{- if eq .kind "hpa" }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "staffetta.metadata" (dict "root" $.root "component" $.component) | nindent 2 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ include "staffetta.fullname" $.root }}-{{ $.component }} }
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: {{ .targetCPU }} }
{{- end }}
{{- end }}
{{- end -}}

{{/* Pods of the release, as peers of a NetworkPolicy. dict root, components */}}
{{- define "staffetta.peer" -}}
- podSelector:
    matchLabels:
      {{- include "staffetta.releaseLabels" .root | nindent 6 }}
    matchExpressions:
      - { key: app.kubernetes.io/component, operator: In, values: {{ toJson .components }} }
{{- end -}}
