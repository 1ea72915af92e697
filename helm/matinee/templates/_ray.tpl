{{/*
Environment of head and workers alike: the modes of Serve must be the same everywhere. `keys` has hashes only, and the application is built
wherever Ray likes.
*/}}
{{- define "matinee.rayEnv" -}}
{{- $serving := .Values.settings.serving -}}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: {{ ternary "1" "0" $serving.fast | quote }}}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: {{ ternary "1" "0" $serving.haproxy | quote }}}
- {name: RAY_SERVE_LOG_TO_STDERR, value: "1"}
# A gateway that goes stays open for so long, until every proxy knows; what it took in by then has a whole deadline left of its drain.
- {name: RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S, value: {{ max 2 (subf $serving.drain_s $serving.deadline_s) | quote }}}
- {name: RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS, value: {{ join "," .Values.metrics.latencyBuckets | quote }}}
# settings.serving.trusted_proxies decides who may name a client's address, not uvicorn's own rule.
- {name: FORWARDED_ALLOW_IPS, value: ""}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_GRAFANA_HOST, value: DISABLED}
- {name: RAY_DEDUP_LOGS, value: "0"}
- {name: OMP_WAIT_POLICY, value: PASSIVE}
{{ include "matinee.scratchEnv" . }}
{{ include "matinee.modelsEnv" (list . false) }}
{{- with .Values.keys.existingSecret }}
- name: MATINEE_SERVING__KEYS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.keys.secretKey }}}}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "matinee.gcs" -}}
{{- if ne .Values.gcsFaultTolerance.backend "none" -}}
gcsFaultToleranceOptions:
  backend: {{ .Values.gcsFaultTolerance.backend }}
  {{- if eq .Values.gcsFaultTolerance.backend "redis" }}
  redisAddress: {{ .Values.gcsFaultTolerance.redisAddress }}
  {{- with .Values.gcsFaultTolerance.existingSecret }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.gcsFaultTolerance.secretKey }}}}
  {{- end }}
  {{- else }}
  storage:
    size: {{ .Values.gcsFaultTolerance.size }}
    deletionPolicy: DeleteWithCluster
  {{- end }}
{{- end -}}
{{- end -}}

{{/* A worker group: (dict "root" $ "group" "gpu"|"cpu" "drain" seconds). */}}
{{- define "matinee.workers" -}}
{{- $root := .root -}}
{{- $group := .group -}}
{{- $w := index $root.Values.workers $group -}}
{{- $models := include "matinee.runsModels" (list $root $group) -}}
{{- $web := eq $group (include "matinee.webGroup" $root) -}}
# The operator writes the whole list back, with its defaults in it. What it would add is here already: else it would own a part of the
# list, and Helm 4 would refuse the next upgrade.
- groupName: {{ $group }}
  minReplicas: {{ $w.minReplicas }}
  maxReplicas: {{ $w.maxReplicas }}
  replicas: {{ $w.minReplicas }}
  numOfHosts: 1
  priority: 0
  scaleStrategy: {}
  rayStartParams:
    num-cpus: {{ $w.cpus | quote }}
    {{- if eq $group "gpu" }}
    num-gpus: {{ $w.gpus | quote }}
    {{- end }}
    # Less than the limit: Ray's own processes need the rest, and Ray kills replicas at 95 % of it.
    memory: {{ include "matinee.replicaMemory" $w | quote }}
    {{- $resources := dict }}
    {{- if eq $group (include "matinee.modelGroup" $root) }}{{ $_ := set $resources "matinee_models" 1000 }}
    {{- else if $models }}{{ $_ := set $resources "matinee_cpu_models" 1000 }}{{ end }}
    {{- if $web }}{{ $_ := set $resources "matinee_web" 1000 }}{{ end }}
    resources: {{ printf "%q" (toJson $resources) | squote }}
  template:
    metadata:
      labels:
        {{- include "matinee.podLabels" (list $root "worker") | nindent 8 }}
        matinee/group: {{ $group }}
      {{- with $root.Values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "matinee.podCommon" $root | nindent 6 }}
      {{- include "matinee.placement" $w | nindent 6 }}
      {{- with get $w "runtimeClassName" }}
      runtimeClassName: {{ . }}
      {{- end }}
      serviceAccountName: {{ include "matinee.serviceAccount" $root }}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: {{ add $root.Values.rollout.migrateSeconds .drain 35 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "matinee.release" $root | nindent 14 }}
              matinee/group: {{ $group }}
      {{- if and $models (ne $root.Values.models.source "image") }}
      initContainers:
        {{- include "matinee.fetch" (list $root "settings.yaml" $w.memory) | nindent 8 }}
      {{- end }}
      containers:
        - name: ray-worker
          image: {{ include "matinee.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          env:
            {{- include "matinee.rayEnv" $root | nindent 12 }}
            # Keys to other services are where their replicas are sent by custom resources, and nowhere else.
            {{- $parts := splitList " " (include "matinee.partsOf" (list $root $group)) }}
            {{- if has "index" $parts }}
            {{- include "matinee.qdrantKeyEnv" $root | nindent 12 }}
            {{- end }}
            {{- if has "enhancer" $parts }}
            {{- include "matinee.enhancerKeyEnv" $root | nindent 12 }}
            {{- end }}
            # When the pod goes, Serve starts its replicas elsewhere, and stops them here once those are up, or in time for the drain.
            - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ add $root.Values.rollout.migrateSeconds .drain | quote }}}
          {{- include "matinee.storeEnvFrom" $root | nindent 10 }}
          ports:
            - {name: metrics, containerPort: 8080, protocol: TCP}
            - {name: serve, containerPort: {{ int $root.Values.settings.serving.port }}, protocol: TCP}
          lifecycle:
            preStop:
              # Until the Services have left it out.
              exec: {command: [sleep, "5"]}
          resources:
            {{- $memory := include "matinee.quantity" $w.memory }}
            requests:
              cpu: {{ $w.cpus | quote }}
              memory: {{ $memory }}
              {{- if eq $group "gpu" }}
              {{ $w.gpuResource }}: {{ $w.gpus | quote }}
              {{- end }}
            limits:
              cpu: {{ $w.cpus | quote }}
              memory: {{ $memory }}
              {{- if eq $group "gpu" }}
              {{ $w.gpuResource }}: {{ $w.gpus | quote }}
              {{- end }}
          securityContext:
            {{- include "matinee.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: models, mountPath: {{ $root.Values.settings.home }}}
            # Not read by the graph, which has its arguments: for commands typed into the pod.
            - {name: settings, mountPath: /etc/matinee, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if and $web (include "matinee.events" $root) }}
            - {name: feedback, mountPath: /etc/matinee-feedback, readOnly: true}
            {{- end }}
            {{- include "matinee.qdrantTlsMount" $root | nindent 12 }}
            {{- if $models }}
            {{- include "matinee.storeMount" $root | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "matinee.qdrantTlsVolume" (list $root false) | nindent 8 }}
        {{- if $models }}
        {{- include "matinee.modelsVolume" $root | nindent 8 }}
        {{- include "matinee.storeVolume" $root | nindent 8 }}
        {{- else }}
        - name: models
          emptyDir: {sizeLimit: 1Gi}
        {{- end }}
        {{- include "matinee.settingsVolume" $root | nindent 8 }}
        {{- if and $web (include "matinee.events" $root) }}
        # A file and no variable: a rotation needs no restart, and no key lies in Serve's checkpoints.
        - name: feedback
          secret:
            secretName: {{ include "matinee.feedbackSecret" $root }}
            items: [{key: {{ $root.Values.feedback.secretKey }}, path: keys}]
        {{- end }}
        - name: tmp
          emptyDir: {sizeLimit: {{ $root.Values.scratch }}}
{{- end -}}
