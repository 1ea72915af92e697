{{/* What fills in the rules' tokens (observability/objectives.py has the same list), as YAML. */}}
{{- define "matinee.ruleTokens" -}}
{{- $a := .Values.alerts -}}
interval: {{ $a.interval | quote }}
runbooks: {{ $a.runbooks | quote }}
availability: {{ $a.availability | quote }}
latency: {{ $a.latency.objective | quote }}
latency_bound: {{ printf "%.1f" (float64 $a.latency.thresholdMs) | quote }}
recall_drop: {{ $a.recall.drop | quote }}
recall_minimum: {{ $a.recall.minimum | quote }}
recall_ann: {{ $a.recall.ann | quote }}
recall_unknown: {{ $a.recall.unknown | quote }}
recall_window: {{ $a.recall.window | quote }}
recall_baseline: {{ $a.recall.baseline | quote }}
recall_for: {{ $a.recall.for | quote }}
degraded: {{ $a.degraded | quote }}
refused: {{ $a.refused | quote }}
queue_wait: {{ $a.queueWaitMs | quote }}
index_age: {{ $a.indexMaxAgeHours | quote }}
probe_silence: {{ $a.probeSilenceMinutes | quote }}
sync_age: {{ $a.syncMaxAgeHours | quote }}
selector: {{ printf "namespace=%q,matinee_release=%q" .Release.Namespace (include "matinee.fullname" .) | quote }}
{{- end -}}

{{- define "matinee.rules" -}}
{{- $text := .Files.Get "files/rules.yaml" -}}
{{- if not .Values.alerts.runbooks -}}{{- $text = regexReplaceAll "\n *runbook_url: .*" $text "" -}}{{- end -}}
{{- range $token, $value := fromYaml (include "matinee.ruleTokens" .) -}}
{{- $text = replace (printf "<%s>" $token) (toString $value) $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "matinee.validateAlerts" -}}
{{- $a := .Values.alerts -}}
{{- if not (has (int $a.latency.thresholdMs) (list 50 100 200 500 1000 2000 5000 10000)) -}}{{- fail (printf "alerts.latency.thresholdMs %d is no bound of the latency histogram, so nothing could be counted: use 50, 100, 200, 500, 1000, 2000, 5000 or 10000" (int $a.latency.thresholdMs)) -}}{{- end -}}
{{- if not .Values.metrics.podMonitor -}}{{- fail "alerts.enabled, but metrics.podMonitor is false: without the release's metrics no alert could fire; enable it" -}}{{- end -}}
{{- if not .Values.settings.serving.metrics -}}{{- fail "alerts.enabled, but settings.serving.metrics is false: most alerts could never fire; enable it" -}}{{- end -}}
{{- if and .Values.probe.enabled (ge (float64 .Values.settings.probe.interval_s) (mulf 60 $a.probeSilenceMinutes)) -}}{{- fail (printf "settings.probe.interval_s %v is no less than alerts.probeSilenceMinutes %v: MatineeProbeSilent would fire between any two rounds; probe more often, or wait for longer" .Values.settings.probe.interval_s $a.probeSilenceMinutes) -}}{{- end -}}
{{- if and $a.runbooks (not (regexMatch "^https?://[^/\\s]+[^\\s?#]*$" $a.runbooks)) -}}{{- fail (printf "alerts.runbooks %s is no URL that a browser opens from an alert: write it like https://git.example/matinee/blob/main/k8s/runbooks, or leave it empty, and alerts name the file" $a.runbooks) -}}{{- end -}}
{{- if hasSuffix "/" $a.runbooks -}}{{- fail (printf "alerts.runbooks %s ends in a slash: the links would have two; remove it" $a.runbooks) -}}{{- end -}}
{{- end -}}

{{/*
The operator writes the port's name into the label `endpoint`, which is also the label of ours that names routes: Prometheus would rename ours.
*/}}
{{- define "matinee.relabelings" -}}
relabelings:
  - action: labeldrop
    regex: endpoint
{{- end -}}
