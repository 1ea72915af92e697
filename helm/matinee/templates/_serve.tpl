{{/* The whole settings tree: what can be null is null where it is absent, and the bundled Qdrant has its address. */}}
{{- define "matinee.settings.tree" -}}
{{- $s := omit (deepCopy .Values.settings) "config" -}}
{{- range $path := list "enhancer.url" "enhancer.revision" "enhancer.adapter" "embedder.revision" "embedder.language" "index.url" "index.tls_ca" "index.graph_from" "index.ef" "index.read_fan_out" "artifacts.uri" "events.uri" "events.signing_keys" "tracing.endpoint" "probe.url" "probe.queries" -}}
{{- $parts := splitList "." $path -}}
{{- $part := index $s (index $parts 0) -}}
{{- $value := get $part (index $parts 1) -}}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") (eq (toString $value) "null") -}}{{- $_ := set $part (index $parts 1) nil -}}{{- end -}}
{{- end -}}
{{- if and (eq .Values.qdrant.mode "bundled") (not $s.index.url) -}}
{{- $_ := set $s.index "url" (printf "%s://%s-qdrant:6333" (include "matinee.qdrantScheme" .) (include "matinee.fullname" .)) -}}
{{- if .Values.qdrant.tls.existingSecret }}{{ $_ := set $s.index "tls_ca" "/etc/qdrant-tls/ca.crt" }}{{ end -}}
{{- end -}}
{{- if and (include "matinee.events" .) (not $s.events.signing_keys) -}}
{{- $_ := set $s.events "signing_keys" "/etc/matinee-feedback/keys" -}}
{{- end -}}
{{- $_ := set $s "index" (omit $s.index "api_key") -}}
{{- $_ := set $s "enhancer" (omit $s.enhancer "api_key") -}}
{{- $_ := set $s "serving" (set (omit $s.serving "keys") "hosts" (fromJsonArray (include "matinee.hosts" .))) -}}
{{- toYaml $s -}}
{{- end -}}

{{/* Every name under which clients reach the API: the Service's, those of Ingress and HTTPRoute, and the user's own. */}}
{{- define "matinee.hosts" -}}
{{- $service := printf "%s-serve-svc" (include "matinee.fullname" .) -}}
{{- $hosts := list $service -}}
{{- range $suffix := list "" ".svc" ".svc.cluster.local" -}}
{{- $hosts = append $hosts (printf "%s.%s%s" $service $.Release.Namespace $suffix) -}}
{{- end -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- concat $hosts .Values.settings.serving.hosts | uniq | toJson -}}
{{- end -}}

{{/* What Serve changes in place: these keys of the two model parts reach their deployments as user_config, and stay out of the arguments. */}}
{{- define "matinee.inPlace" -}}
{{- toYaml (omit . "enabled" "deadline_s" "cache_entries" "cache_bytes" "language" "encode_tokens" "bulk_share" "bulk_waiting" "hang_s" "deployment" "cpu_fallback" "cpu_deployment") -}}
{{- end -}}

{{/*
The application's arguments: a change of them restarts every replica, so what can change without is left out of them. Settings checks
limits against each other: those that `deployments` overrides stand here at a value that contradicts none.
*/}}
{{- define "matinee.args" -}}
{{- $s := omit (fromYaml (include "matinee.settings.tree" .)) "probe" -}}
{{- range $part := list "enhancer" "embedder" "index" "serving" -}}
{{- $tree := index $s $part -}}
{{- $limits := pick $tree.deployment "max_ongoing_requests" "max_queued_requests" -}}
{{- /* Callers of a part that may have no replica have to know that. */ -}}
{{- $neutral := dict "min_replicas" (min 1 $tree.deployment.min_replicas) "max_replicas" 1 "target_ongoing_requests" 1 -}}
{{- $_ := set $tree "deployment" (merge $limits $neutral) -}}
{{- end -}}
{{- $enhancer := pick $s.enhancer "enabled" "deadline_s" "cache_entries" "cache_bytes" "bulk_share" "bulk_waiting" "hang_s" "deployment" -}}
{{- $_ := set $s "enhancer" (merge $enhancer (dict "batch_size" 1)) -}}
{{- $embedder := pick $s.embedder "cache_entries" "cache_bytes" "language" "encode_tokens" "bulk_share" "bulk_waiting" "hang_s" "deployment" -}}
{{- if $s.embedder.cpu_fallback -}}
{{- $limits := pick $s.embedder.cpu_deployment "max_ongoing_requests" "max_queued_requests" -}}
{{- $_ := set $embedder "cpu_deployment" (merge $limits (dict "min_replicas" 1 "max_replicas" 1 "target_ongoing_requests" 1)) -}}
{{- $_ := set $embedder "deployment" (merge $embedder.deployment (dict "num_gpus" 1)) -}}
{{- $_ := set $embedder "cpu_fallback" true -}}
{{- end -}}
{{- $_ := set $s "embedder" $embedder -}}
{{- $_ := set $s "profile" "embedded" -}}
{{- toYaml $s -}}
{{- end -}}

{{/* One entry of `deployments`: (dict "root" $ "name" .. "limits" .. "group" "models"|"cpu_models"|"web" "user" .. "surge" ..). */}}
{{- define "matinee.deployment" -}}
- name: {{ .name }}
  {{- if gt (int .limits.max_replicas) (int .limits.min_replicas) }}
  autoscaling_config:
    min_replicas: {{ int .limits.min_replicas }}
    max_replicas: {{ int .limits.max_replicas }}
    target_ongoing_requests: {{ .limits.target_ongoing_requests }}
    upscale_delay_s: {{ .limits.upscale_delay_s }}
    downscale_delay_s: {{ .limits.downscale_delay_s }}
  {{- else }}
  num_replicas: {{ int .limits.min_replicas }}
  {{- end }}
  ray_actor_options:
    num_cpus: {{ .limits.num_cpus }}
    num_gpus: {{ .limits.num_gpus }}
    {{- if gt (float64 .limits.memory_gib) 0.0 }}
    memory: {{ mulf .limits.memory_gib 1073741824 | int64 }}
    {{- end }}
    resources: { {{- printf "matinee_%s" .group }}: 0.001}
  {{- with int .limits.max_replicas_per_node }}
  max_replicas_per_node: {{ . }}
  {{- end }}
  max_surge_percent: {{ .surge }}
  rolling_update_percentage: {{ .root.Values.rollout.updateFraction }}
  {{- if hasKey . "user" }}
  {{- if .user }}
  user_config:
    {{- toYaml .user | nindent 4 }}
  {{- else }}
  user_config: {}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "matinee.serveConfig" -}}
{{- $s := fromYaml (include "matinee.settings.tree" .) -}}
{{- $surge := int .Values.rollout.maxSurgePercent -}}
proxy_location: EveryNode
http_options:
  host: {{ $s.serving.host }}
  port: {{ int $s.serving.port }}
  request_timeout_s: {{ add (ceil $s.serving.deadline_s) 5 }}
logging_config:
  log_level: {{ .Values.logging.level }}
  encoding: {{ .Values.logging.encoding }}
  enable_access_log: {{ .Values.logging.accessLog }}
applications:
  - name: matinee
    route_prefix: /
    import_path: serve.app:build
    args:
      {{- include "matinee.args" . | nindent 6 }}
    deployments:
      {{- $user := fromYaml (include "matinee.inPlace" $s.embedder) }}
      {{- include "matinee.deployment" (dict "root" . "name" "Embedder" "limits" $s.embedder.deployment "group" (include "matinee.modelPlace" (list . $s.embedder.deployment.num_gpus)) "surge" $surge "user" $user) | nindent 6 }}
      {{- if $s.embedder.cpu_fallback }}
      {{- include "matinee.deployment" (dict "root" . "name" "CpuEmbedder" "limits" $s.embedder.cpu_deployment "group" "cpu_models" "surge" $surge "user" $user) | nindent 6 }}
      {{- end }}
      {{- if $s.enhancer.enabled }}
      {{- $user := fromYaml (include "matinee.inPlace" $s.enhancer) }}
      {{- include "matinee.deployment" (dict "root" . "name" "Enhancer" "limits" $s.enhancer.deployment "group" (include "matinee.modelPlace" (list . $s.enhancer.deployment.num_gpus)) "surge" $surge "user" $user) | nindent 6 }}
      {{- end }}
      {{- include "matinee.deployment" (dict "root" . "name" "Retriever" "limits" $s.index.deployment "group" (ternary "models" "web" (eq $s.index.engine "edge")) "surge" $surge) | nindent 6 }}
      {{- $keys := ternary (dict) (dict "keys" .Values.settings.serving.keys) (ne .Values.keys.existingSecret "") }}
      {{- include "matinee.deployment" (dict "root" . "name" "Gateway" "limits" $s.serving.deployment "group" "web" "surge" $surge "user" $keys) | nindent 6 }}
{{- end -}}
