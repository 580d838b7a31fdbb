{{/* The resource documents, a file for each name. Values may be text, one object or a list of objects. */}}
{{- define "staffetta.documents" -}}
{{- range $name, $documents := .Values.documents }}
{{ $name }}.yaml: |
  {{- if kindIs "string" $documents }}
  {{- $documents | nindent 2 }}
  {{- else if kindIs "slice" $documents }}
  {{- range $documents }}
  ---
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- else }}
  {{- toYaml $documents | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "staffetta.documentsName" -}}
{{- if .Values.existingDocuments -}}
{{- .Values.existingDocuments -}}
{{- else if .Values.documents -}}
{{- printf "%s-documents" (include "staffetta.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* "true…" when a Job of this release has created the installation already, as far as the cluster can tell. */}}
{{- define "staffetta.created" -}}
{{- if lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-created" (include "staffetta.fullname" .)) -}}
true
{{- end -}}
{{- range (lookup "batch/v1" "Job" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (eq (get $labels "app.kubernetes.io/component") "init") (dig "status" "succeeded" 0 .) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One container of the Job. dict root, name, args, documents */}}
{{- define "staffetta.initContainer" -}}
- name: {{ .name }}
  image: {{ include "staffetta.image" (dict "root" .root "image" .root.Values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ toJson .args }}
  env:
    {{- include "staffetta.env" .root | nindent 4 }}
  securityContext:
    {{- include "staffetta.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .root.Values.init.resources | nindent 4 }}
  volumeMounts:
    - { name: config, mountPath: /etc/staffetta/config, readOnly: true }
    {{- with include "staffetta.storeMounts" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .documents }}
    - { name: documents, mountPath: /etc/staffetta/documents, readOnly: true }
    {{- end }}
{{- end -}}

{{/* The pod of the Job. dict root, create (whether streams may be created) */}}
{{- define "staffetta.initPod" -}}
{{- $root := .root -}}
{{- $documents := include "staffetta.documentsName" $root -}}
{{- $apply := list "apply" "--file" "/etc/staffetta/documents" "--wait" "10m" "--server" (printf "http://%s:7103" (include "staffetta.host" (dict "root" $root "name" "scheduler"))) -}}
{{- if $root.Values.init.prune -}}{{- $apply = append $apply "--prune" -}}{{- end -}}
{{- $steps := list -}}
{{- if .create -}}
{{- $steps = append $steps (include "staffetta.initContainer" (dict "root" $root "name" "init" "args" (list "init" "--wait" "10m"))) -}}
{{- end -}}
{{- if $documents -}}
{{- $steps = append $steps (include "staffetta.initContainer" (dict "root" $root "name" "apply" "args" $apply "documents" $documents)) -}}
{{- end -}}
metadata:
  labels:
    {{- include "staffetta.selector" (dict "root" $root "component" "init") | nindent 4 }}
    app.kubernetes.io/part-of: staffetta
spec:
  {{- include "staffetta.podIdentity" (dict "root" $root "component" "init") | nindent 2 }}
  restartPolicy: OnFailure
  securityContext:
    {{- include "staffetta.podSecurity" . | nindent 4 }}
  {{- if gt (len $steps) 1 }}
  initContainers:
    {{- first $steps | nindent 4 }}
  {{- end }}
  containers:
    {{- last $steps | nindent 4 }}
  volumes:
    - name: config
      configMap: { name: {{ include "staffetta.fullname" $root }}-config }
    {{- with include "staffetta.storeVolumes" $root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if $documents }}
    - name: documents
      configMap: { name: {{ $documents }} }
    {{- end }}
{{- end -}}
