{{/* A step of the test in Python. dict root, name, and for sending the listener */}}
{{- define "staffetta.testStep" -}}
- name: {{ .name }}
  image: {{ include "staffetta.image" (dict "root" .root "image" .root.Values.tests.image) }}
  imagePullPolicy: {{ .root.Values.tests.image.pullPolicy }}
  command: [python3, -B, -u, /script/delivery.py, {{ .name }}]
  env:
    - name: POD_IP
      valueFrom: { fieldRef: { fieldPath: status.podIP } }
    - { name: SINK_HOST, value: {{ include "staffetta.host" (dict "root" .root "name" "test") }} }
    - { name: TIMEOUT_SECONDS, value: {{ .root.Values.tests.timeoutSeconds | quote }} }
    {{- with .listener }}
    - { name: SMTP_HOST, value: {{ include "staffetta.host" (dict "root" $.root "name" "smtp") }} }
    - { name: SMTP_PORT, value: {{ .servicePort | quote }} }
    - { name: SMTP_TLS, value: {{ .tls }} }
    {{- end }}
  securityContext:
    {{- include "staffetta.containerSecurity" . | nindent 4 }}
  resources:
    requests: { cpu: 10m, memory: 32Mi }
    limits: { memory: 128Mi }
  volumeMounts:
    - { name: script, mountPath: /script, readOnly: true }
    - { name: work, mountPath: /scratch }
{{- end -}}

{{/* A step of the test that applies documents. dict root, name, file, prune */}}
{{- define "staffetta.testApply" -}}
{{- $args := list "apply" "--file" .file "--wait" "1m" "--server" (printf "http://%s:7103" (include "staffetta.host" (dict "root" .root "name" "scheduler"))) -}}
{{- if .prune -}}{{- $args = append $args "--prune" -}}{{- end -}}
- name: {{ .name }}
  image: {{ include "staffetta.image" (dict "root" .root "image" .root.Values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ toJson $args }}
  env:
    {{- include "staffetta.env" .root | nindent 4 }}
  securityContext:
    {{- include "staffetta.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .root.Values.init.resources | nindent 4 }}
  volumeMounts:
    - { name: config, mountPath: /etc/staffetta/config, readOnly: true }
    - { name: work, mountPath: /scratch, readOnly: true }
    {{- if include "staffetta.documentsName" .root }}
    - { name: documents, mountPath: /etc/staffetta/documents, readOnly: true }
    {{- end }}
{{- end -}}
