{{/* nats.conf. dict root, name, headless. $POD_NAME and the like are of NATS' own configuration language. */}}
{{- define "staffetta.natsConfig" -}}
{{- $nats := .root.Values.nats -}}
{{- $servers := int $nats.replicas -}}
server_name: $POD_NAME
port: 4222
http_port: 8222
pid_file: /run/nats/nats.pid
max_payload: 8MB
lame_duck_grace_period: 5s
lame_duck_duration: 30s
jetstream {
  store_dir: /data
  max_file_store: {{ include "staffetta.size" $nats.persistence.size }}
  max_memory_store: 16MiB
  sync_interval: {{ $nats.syncInterval | quote }}
}
{{- if $nats.authSecret }}
authorization {
  user: $NATS_USERNAME
  password: $NATS_PASSWORD
}
{{- end }}
{{- if gt $servers 1 }}
cluster {
  name: {{ .name }}
  port: 6222
  {{- if $nats.authSecret }}
  authorization {
    user: $NATS_USERNAME
    password: $NATS_PASSWORD
  }
  {{- end }}
  routes: [
    {{- range until $servers }}
    {{- if $nats.authSecret }}
    $NATS_ROUTE_{{ . }}
    {{- else }}
    nats-route://{{ $.name }}-{{ . }}.{{ $.headless }}:6222
    {{- end }}
    {{- end }}
  ]
}
{{- end }}
{{- end -}}
