{{/* Names. At most 40 characters: KubeRay appends to them, and every release has its own. */}}
{{- define "matinee.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "matinee.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "matinee.release" . }}
{{- end -}}

{{/* Our own keys, which select pods: KubeRay writes some of the common ones on its pods. */}}
{{- define "matinee.release" -}}
matinee/release: {{ include "matinee.fullname" . }}
{{- end -}}

{{/* Labels of a pod: (list $ "part"). */}}
{{- define "matinee.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := fromYaml (include "matinee.release" $root) -}}
{{- toYaml (mergeOverwrite (deepCopy $root.Values.podLabels) $own (dict "matinee/part" (index . 1))) -}}
{{- end -}}

{{/* Selector of a part's pods: (list $ "part"). */}}
{{- define "matinee.selector" -}}
{{ include "matinee.release" (index . 0) }}
matinee/part: {{ index . 1 }}
{{- end -}}

{{- define "matinee.image" -}}
{{- $target := ternary "gpu" "cpu" .Values.workers.gpu.enabled -}}
{{- $tag := default (printf "%s-%s" .Chart.AppVersion $target) .Values.image.tag -}}
{{- if .Values.image.digest -}}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{- else -}}{{ .Values.image.repository }}:{{ $tag }}{{- end -}}
{{- end -}}

{{- define "matinee.qdrantImage" -}}
{{- with .Values.qdrant.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "matinee.serviceAccount" -}}{{ default (include "matinee.fullname" .) .Values.serviceAccount.name }}{{- end -}}

{{- define "matinee.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "matinee.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every pod of ours has. */}}
{{- define "matinee.podCommon" -}}
enableServiceLinks: false
securityContext:
  {{- include "matinee.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Where a pod may run: (dict "nodeSelector" .. "tolerations" .. "affinity" ..). */}}
{{- define "matinee.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "matinee.resources" -}}
{{- $memory := include "matinee.quantity" .memory }}
{{- $cpu := include "matinee.quantity" .cpu }}
requests: {cpu: {{ $cpu }}, memory: {{ $memory }}}
limits: {cpu: {{ $cpu }}, memory: {{ $memory }}}
{{- end -}}

{{/* Number of a quantity, such as 12Gi: bytes of memory. */}}
{{- define "matinee.number" -}}
{{- $factors := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" .) (default 1 (get $factors (regexFind "[a-zA-Z]+$" .))) -}}
{{- end -}}

{{/*
A quantity as Kubernetes writes it back, such as 12800Mi for 12.5Gi and 500m for 0.5. The operator writes the whole RayService: what it
would change, it would own, and Helm 4 would refuse the next upgrade.
*/}}
{{- define "matinee.quantity" -}}
{{- $binary := hasSuffix "i" . -}}
{{- $left := mulf (include "matinee.number" .) (ternary 1 1000 $binary) | int64 -}}
{{- $step := ternary 1024 1000 $binary -}}
{{- $units := ternary (list "" "Ki" "Mi" "Gi" "Ti") (list "m" "" "k" "M" "G" "T") $binary -}}
{{- $unit := first $units -}}
{{- range $larger := rest $units -}}
{{- if and $left (eq (mod $left $step) 0) -}}{{- $left = div $left $step -}}{{- $unit = $larger -}}{{- end -}}
{{- end -}}
{{- printf "%d%s" $left $unit | quote -}}
{{- end -}}

{{/* Bytes of a worker pod that replicas may ask for. */}}
{{- define "matinee.replicaMemory" -}}
{{- mulf (include "matinee.number" .memory) 0.85 | int64 -}}
{{- end -}}

{{/* Memory, and the one writable place of a container whose root is read-only. */}}
{{- define "matinee.scratchEnv" -}}
- {name: HOME, value: /tmp}
- {name: XDG_CACHE_HOME, value: /tmp/cache}
- {name: TORCHINDUCTOR_CACHE_DIR, value: /tmp/cache/inductor}
- {name: TRITON_CACHE_DIR, value: /tmp/cache/triton}
{{- end -}}

{{/* The Qdrant key, as the application reads it. */}}
{{- define "matinee.qdrantSecret" -}}
{{- if .Values.qdrant.apiKey.existingSecret -}}{{ .Values.qdrant.apiKey.existingSecret }}
{{- else if eq .Values.qdrant.mode "bundled" -}}{{ include "matinee.fullname" . }}-qdrant
{{- end -}}
{{- end -}}

{{/* TLS of the bundled Qdrant: its scheme, and the certificates in a pod that talks to it. */}}
{{- define "matinee.qdrantScheme" -}}{{ ternary "https" "http" (not (empty .Values.qdrant.tls.existingSecret)) }}{{- end -}}
{{- define "matinee.qdrantTlsMount" -}}
{{- if and (eq .Values.qdrant.mode "bundled") .Values.qdrant.tls.existingSecret }}
- {name: qdrant-tls, mountPath: /etc/qdrant-tls, readOnly: true}
{{- end }}
{{- end -}}
{{/* Whoever only checks the certificate gets no key: (list $ false). */}}
{{- define "matinee.qdrantTlsVolume" -}}
{{- $root := index . 0 -}}
{{- if and (eq $root.Values.qdrant.mode "bundled") $root.Values.qdrant.tls.existingSecret }}
- name: qdrant-tls
  secret:
    secretName: {{ $root.Values.qdrant.tls.existingSecret }}
    {{- if not (index . 1) }}
    items: [{key: ca.crt, path: ca.crt}]
    {{- end }}
{{- end }}
{{- end -}}

{{- define "matinee.qdrantKeyEnv" -}}
{{- with include "matinee.qdrantSecret" . }}
- name: MATINEE_INDEX__API_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.qdrant.apiKey.secretKey }}}}
{{- end }}
{{- end -}}

{{- define "matinee.enhancerKeyEnv" -}}
{{- with .Values.enhancerServer.apiKey }}
{{- if .existingSecret }}
- name: MATINEE_ENHANCER__API_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretKey }}}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Not empty where events are kept. */}}
{{- define "matinee.events" -}}
{{- with .Values.settings.events.uri }}{{ if ne (toString .) "null" }}true{{ end }}{{ end -}}
{{- end -}}
{{- define "matinee.feedbackSecret" -}}
{{- default (printf "%s-feedback" (include "matinee.fullname" .)) .Values.feedback.existingSecret -}}
{{- end -}}

{{/* The models' environment. The first argument says whether the container may reach the hub: (list $ true). */}}
{{- define "matinee.modelsEnv" -}}
{{- $root := index . 0 -}}
- {name: HF_HOME, value: {{ printf "%s/hub" $root.Values.settings.home | quote }}}
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
{{- if index . 1 }}
- {name: HF_ENDPOINT, value: {{ $root.Values.models.hub.endpoint | quote }}}
{{- with $root.Values.models.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $root.Values.models.hub.secretKey }}}}
{{- end }}
{{- else }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- end -}}

{{/* HTTPS to a list of addresses; to none where the list is empty. */}}
{{- define "matinee.web" -}}
{{- if . }}
- to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports: [{protocol: TCP, port: 443}]
{{- end }}
{{- end -}}

{{/* What reading settings.artifacts.uri takes. */}}
{{- define "matinee.storeEnvFrom" -}}
{{- with .Values.models.store.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}
{{- define "matinee.storeMount" -}}
{{- if .Values.models.store.existingClaim }}
- {name: artifacts, mountPath: /artifacts, readOnly: true}
{{- end }}
{{- end -}}
{{- define "matinee.storeVolume" -}}
{{- with .Values.models.store.existingClaim }}
- name: artifacts
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* A container that checks the settings and fetches and converts what they name, before the one that stays offline: (list $ "settings.yaml" "4Gi"). */}}
{{- define "matinee.fetch" -}}
{{- $root := index . 0 -}}
- name: models
  image: {{ include "matinee.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [python, -m, serve, check]
  env:
    - {name: MATINEE_CONFIG, value: /etc/matinee/{{ index . 1 }}}
    {{- include "matinee.scratchEnv" $root | nindent 4 }}
    {{- include "matinee.modelsEnv" (list $root (eq $root.Values.models.source "hub")) | nindent 4 }}
  {{- include "matinee.storeEnvFrom" $root | nindent 2 }}
  resources:
    {{- include "matinee.resources" (dict "cpu" "1" "memory" (index . 2)) | nindent 4 }}
  securityContext:
    {{- include "matinee.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: {{ $root.Values.settings.home }}}
    - {name: settings, mountPath: /etc/matinee, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- include "matinee.storeMount" $root | nindent 4 }}
{{- end -}}

{{- define "matinee.modelsClaim" -}}
{{- default (printf "%s-models" (include "matinee.fullname" .)) .Values.models.storage.existingClaim -}}
{{- end -}}

{{- define "matinee.modelsVolume" -}}
- name: models
  {{- if eq .Values.models.storage.kind "pvc" }}
  persistentVolumeClaim: {claimName: {{ include "matinee.modelsClaim" . }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ include "matinee.quantity" .Values.models.storage.size }}}
  {{- end }}
{{- end -}}

{{- define "matinee.settingsVolume" -}}
- name: settings
  configMap: {name: {{ include "matinee.fullname" . }}-settings}
{{- end -}}

{{/* Which worker group runs models, which runs gateways and retrievers. */}}
{{- define "matinee.modelGroup" -}}{{ ternary "gpu" "cpu" .Values.workers.gpu.enabled }}{{- end -}}
{{- define "matinee.webGroup" -}}{{ ternary "cpu" "gpu" .Values.workers.cpu.enabled }}{{- end -}}
{{/* "true" where the cpu group runs models beside a gpu group. */}}
{{- define "matinee.cpuModels" -}}{{ if and .Values.workers.gpu.enabled .Values.workers.cpu.enabled .Values.workers.cpu.models }}true{{ end }}{{- end -}}
{{/* "true" where a group runs models: (list $ "gpu"). */}}
{{- define "matinee.runsModels" -}}
{{- $root := index . 0 -}}
{{- if or (eq (index . 1) (include "matinee.modelGroup" $root)) (and (eq (index . 1) "cpu") (include "matinee.cpuModels" $root)) -}}true{{- end -}}
{{- end -}}
{{/* Where a model with this share of a GPU runs, as the resource `matinee_...` names it: (list $ num_gpus). */}}
{{- define "matinee.modelPlace" -}}
{{- if and (include "matinee.cpuModels" (index . 0)) (eq (float64 (index . 1)) 0.0) -}}cpu_models{{- else -}}models{{- end -}}
{{- end -}}

{{/* The parts of the settings whose replicas run in a worker group, separated by spaces: (list $ "gpu"). */}}
{{- define "matinee.partsOf" -}}
{{- $root := index . 0 -}}
{{- $models := include "matinee.modelGroup" $root -}}
{{- $web := include "matinee.webGroup" $root -}}
{{- $of := dict -}}
{{- range $part := list "embedder" "enhancer" -}}
{{- $place := include "matinee.modelPlace" (list $root (index $root.Values.settings $part).deployment.num_gpus) -}}
{{- $_ := set $of $part (ternary "cpu" $models (eq $place "cpu_models")) -}}
{{- end -}}
{{- $of = merge $of (dict "index" (ternary $models $web (eq $root.Values.settings.index.engine "edge")) "serving" $web) -}}
{{- if not $root.Values.settings.enhancer.enabled -}}{{- $of = omit $of "enhancer" -}}{{- end -}}
{{- $parts := list -}}
{{- range $part, $group := $of -}}{{- if eq $group (index $ 1) -}}{{- $parts = append $parts $part -}}{{- end -}}{{- end -}}
{{- join " " $parts -}}
{{- end -}}

{{/*
Worker pods of a group that a drain has to leave: (list $ "gpu"). A pod without a replica is never Ready, so only those count on which
`max_replicas_per_node` puts one for certain; one of them may always go.
*/}}
{{- define "matinee.minAvailable" -}}
{{- $root := index . 0 -}}
{{- $ready := 1 -}}
{{- range $part := splitList " " (include "matinee.partsOf" .) -}}
{{- $d := (index $root.Values.settings $part).deployment -}}
{{- with int $d.max_replicas_per_node -}}
{{- $ready = max $ready (divf $d.min_replicas . | ceil) -}}
{{- end -}}
{{- end -}}
{{- sub (min $ready (index $root.Values.workers (index . 1)).minReplicas) 1 -}}
{{- end -}}
