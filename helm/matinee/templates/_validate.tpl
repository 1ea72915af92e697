{{/* What contradicts itself fails the render, with both values and what to do. What the schema can say, it says. */}}
{{- define "matinee.validate" -}}
{{- include "matinee.validateNames" . -}}
{{- include "matinee.validateSettings" . -}}
{{- include "matinee.validateServing" . -}}
{{- include "matinee.validateIndex" . -}}
{{- include "matinee.validatePods" . -}}
{{- include "matinee.validateGroups" . -}}
{{- end -}}

{{- define "matinee.validateNames" -}}
{{- $name := include "matinee.fullname" . -}}
{{- if gt (len $name) 40 -}}{{- fail (printf "the name %q has %d characters, and KubeRay appends to it: set fullnameOverride to at most 40" $name (len $name)) -}}{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}{{- fail (printf "the name %q can't be a Service's: set fullnameOverride to lower-case letters, digits and -, beginning with a letter" $name) -}}{{- end -}}
{{- if and .Values.image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" .Values.image.digest)) -}}{{- fail (printf "image.digest %q is no digest: write it as sha256: and 64 hex digits, or leave it empty and set image.tag" .Values.image.digest) -}}{{- end -}}
{{- if and (eq .Values.image.tag "latest") (not .Values.image.digest) -}}{{- fail "image.tag latest names another image tomorrow: set a version, or image.digest" -}}{{- end -}}
{{- range $name, $value := .Values.env -}}
{{- if hasPrefix "MATINEE_" $name -}}{{- fail (printf "env.%s: settings belong into `settings`, where they are checked; remove it from env" $name) -}}{{- end -}}
{{- if has $name (list "RAY_SERVE_THROUGHPUT_OPTIMIZED" "RAY_SERVE_ENABLE_HA_PROXY" "RAY_SERVE_LOG_TO_STDERR" "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S" "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" "RAY_AUTH_MODE" "RAY_AUTH_TOKEN" "HF_HUB_OFFLINE" "HOME" "FORWARDED_ALLOW_IPS") -}}{{- fail (printf "env.%s is set by the chart: use settings.serving.fast, settings.serving.haproxy, settings.serving.drain_s, settings.serving.trusted_proxies, rollout, auth or models instead" $name) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The rules of matinee/settings/tree.py, on what the chart takes apart before the application can see it whole. */}}
{{- define "matinee.validateSettings" -}}
{{- $s := .Values.settings -}}
{{- if hasKey $s "config" -}}{{- fail "settings.config names a file in the pods: put what it says into settings" -}}{{- end -}}
{{- if get $s.index "api_key" -}}{{- fail "settings.index.api_key would stand in the RayService in clear text: put it into a Secret and name it in qdrant.apiKey.existingSecret" -}}{{- end -}}
{{- if get $s.enhancer "api_key" -}}{{- fail "settings.enhancer.api_key would stand in the RayService in clear text: put it into a Secret and name it in enhancerServer.apiKey.existingSecret" -}}{{- end -}}
{{- if get $s.probe "key" -}}{{- fail "settings.probe.key would stand in the RayService in clear text: put it into a Secret, as MATINEE_PROBE__KEY of the probe" -}}{{- end -}}
{{- with $s.embedder -}}
{{- if and .cpu_fallback (eq (float64 .deployment.num_gpus) 0.0) -}}{{- fail "settings.embedder.cpu_fallback is true, but settings.embedder.deployment.num_gpus is 0: the embedder runs on CPUs already; set cpu_fallback to false" -}}{{- end -}}
{{- if gt (float64 .cpu_deployment.num_gpus) 0.0 -}}{{- fail "settings.embedder.cpu_deployment.num_gpus is above 0, but this is the deployment on CPUs: set it to 0" -}}{{- end -}}
{{- if and .cpu_fallback (not (include "matinee.cpuModels" $)) -}}{{- fail "settings.embedder.cpu_fallback needs a place on CPUs with the models: set workers.cpu.enabled and workers.cpu.models" -}}{{- end -}}
{{- end -}}
{{- $deployments := dict "embedder.cpu_deployment" $s.embedder.cpu_deployment -}}
{{- range $part := list "enhancer" "embedder" "index" "serving" -}}{{- $_ := set $deployments (printf "%s.deployment" $part) (index $s $part).deployment -}}{{- end -}}
{{- range $part, $d := $deployments -}}
{{- if lt (int $d.max_replicas) (int $d.min_replicas) -}}{{- fail (printf "settings.%s.max_replicas %d is below min_replicas %d: raise it" $part (int $d.max_replicas) (int $d.min_replicas)) -}}{{- end -}}
{{- if gt (float64 $d.target_ongoing_requests) (float64 $d.max_ongoing_requests) -}}{{- fail (printf "settings.%s.target_ongoing_requests %v is above max_ongoing_requests %d: replicas would refuse work before one is added; lower the target" $part $d.target_ongoing_requests (int $d.max_ongoing_requests)) -}}{{- end -}}
{{- end -}}
{{- if gt (int $s.enhancer.batch_size) (int $s.enhancer.deployment.max_ongoing_requests) -}}{{- fail (printf "settings.enhancer.batch_size %d is above settings.enhancer.deployment.max_ongoing_requests %d: such a batch could never fill; lower it or raise the limit" (int $s.enhancer.batch_size) (int $s.enhancer.deployment.max_ongoing_requests)) -}}{{- end -}}
{{- if ge (float64 $s.enhancer.deadline_s) (float64 $s.serving.deadline_s) -}}{{- fail (printf "settings.enhancer.deadline_s %v is not below settings.serving.deadline_s %v: a late description would leave no time for the answer without it; lower it" $s.enhancer.deadline_s $s.serving.deadline_s) -}}{{- end -}}
{{- $e := $s.enhancer -}}
{{- $url := toString $e.url -}}
{{- $set := and $e.url (ne $url "null") -}}
{{- if eq $e.engine "openai" -}}
{{- if not $set -}}{{- fail "settings.enhancer.engine openai needs settings.enhancer.url, the server's base URL, such as http://vllm:8000/v1" -}}{{- end -}}
{{- range $name := list "model" "adapter" -}}
{{- if regexMatch "^(pypi|hub|artifact):" (toString (get $e $name)) -}}{{- fail (printf "settings.enhancer.%s %v names weights, but settings.enhancer.engine openai takes the server's name for it: see its /models" $name (get $e $name)) -}}{{- end -}}
{{- end -}}
{{- if ne $e.precision "auto" -}}{{- fail (printf "settings.enhancer.precision is %s, but with settings.enhancer.engine openai the server decides it: set precision auto" $e.precision) -}}{{- end -}}
{{- if gt (float64 $e.deployment.num_gpus) 0.0 -}}{{- fail (printf "settings.enhancer.deployment.num_gpus is %v, but with settings.enhancer.engine openai the replica has no model: set it to 0" $e.deployment.num_gpus) -}}{{- end -}}
{{- if and (hasPrefix "http://" $url) (contains "." (get (urlParse $url) "hostname")) (not (regexMatch "[.]svc([.].*)?$" (get (urlParse $url) "hostname"))) .Values.enhancerServer.apiKey.existingSecret -}}{{- fail (printf "settings.enhancer.url %s would carry the API key in clear text: use https" $url) -}}{{- end -}}
{{- if and $e.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}{{- fail "settings.enhancer.engine openai, but networkPolicy.egress is empty: the workers could not reach the server; add an entry for its pods" -}}{{- end -}}
{{- else if or $set $e.chat -}}{{- fail "settings.enhancer.engine local does not use settings.enhancer.url and chat: set engine openai, or remove them" -}}{{- end -}}
{{- if and (ne $s.index.recipe "raw") (not $s.enhancer.enabled) -}}{{- fail (printf "settings.index.recipe %s needs descriptions, but settings.enhancer.enabled is false: enable it, or use raw" $s.index.recipe) -}}{{- end -}}
{{- end -}}

{{- define "matinee.validateServing" -}}
{{- $s := .Values.settings.serving -}}
{{- if lt (float64 $s.drain_s) (float64 $s.deadline_s) -}}{{- fail (printf "settings.serving.drain_s %v is below settings.serving.deadline_s %v: a roll-over would cut requests off; raise it" $s.drain_s $s.deadline_s) -}}{{- end -}}
{{- if lt (float64 .Values.rayService.deletionDelaySeconds) (float64 $s.drain_s) -}}{{- fail (printf "rayService.deletionDelaySeconds %v is below settings.serving.drain_s %v: the old cluster would go before its requests; raise it" .Values.rayService.deletionDelaySeconds $s.drain_s) -}}{{- end -}}
{{- if regexMatch "^(127\\.|localhost$|::1$)" $s.host -}}{{- fail (printf "settings.serving.host %s: on loopback the write routes need no key, and a proxy in front would open them to everyone; set 0.0.0.0" $s.host) -}}{{- end -}}
{{- if lt (int $s.port) 1024 -}}{{- fail (printf "settings.serving.port %d: a container without privileges can't bind it; use 1024 or above, such as 8000" (int $s.port)) -}}{{- end -}}
{{- if has (int $s.port) (list 6379 8080 8265 8404 9101 10001) -}}{{- fail (printf "settings.serving.port %d is one of Ray's own ports: use another, such as 8000" (int $s.port)) -}}{{- end -}}
{{- if and $s.keys .Values.keys.existingSecret -}}{{- fail "settings.serving.keys and keys.existingSecret are both set: keep one" -}}{{- end -}}
{{- $names := list -}}
{{- range $s.keys -}}
{{- if has .name $names -}}{{- fail (printf "settings.serving.keys has the name %q twice: the logs could not tell them apart; rename one" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $keys := or $s.keys .Values.keys.existingSecret -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (not $keys) (not .Values.exposure.anonymousRead) -}}{{- fail "ingress or httpRoute is enabled, but there are no keys, so everyone outside may read: set settings.serving.keys or keys.existingSecret, or exposure.anonymousRead: true if that is meant" -}}{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}{{- fail "ingress.enabled needs ingress.host" -}}{{- end -}}
{{- if and .Values.ingress.enabled $keys (not .Values.ingress.tlsSecret) (not .Values.ingress.annotations) -}}{{- fail "ingress would carry API keys without TLS: set ingress.tlsSecret, or the annotation by which your controller adds a certificate" -}}{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.gateway) -}}{{- fail "httpRoute.enabled needs httpRoute.gateway, the Gateway that it attaches to" -}}{{- end -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) .Values.networkPolicy.enabled (not .Values.networkPolicy.clients) -}}{{- fail "ingress or httpRoute is enabled, but networkPolicy.clients is empty, so its controller could not reach the API: add its namespace, such as {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}" -}}{{- end -}}
{{- if and .Values.httpRoute.enabled (not $keys) (not .Values.httpRoute.hostnames) (not $s.hosts) -}}{{- fail "httpRoute.enabled without keys needs httpRoute.hostnames (or settings.serving.hosts): a server without keys answers to the hosts it knows, so that no web page reaches it under a name of its own" -}}{{- end -}}
{{- $collector := get .Values.settings.tracing "endpoint" -}}
{{- if and $collector (ne (toString $collector) "null") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}{{- fail (printf "settings.tracing.endpoint %s, but networkPolicy.egress is empty: the workers could not reach it; add an entry for its pods" $collector) -}}{{- end -}}
{{- end -}}

{{- define "matinee.validateIndex" -}}
{{- $i := .Values.settings.index -}}
{{- $q := .Values.qdrant -}}
{{- $url := and $i.url (ne (toString $i.url) "null") -}}
{{- if eq $i.engine "edge" -}}
{{- if ne $q.mode "none" -}}{{- fail (printf "settings.index.engine edge is the engine inside the Retriever, but qdrant.mode is %s: set qdrant.mode none, or engine qdrant" $q.mode) -}}{{- end -}}
{{- if gt (int $i.deployment.max_replicas) 1 -}}{{- fail (printf "settings.index.deployment.max_replicas is %d, but the embedded engine allows one process a path: set it to 1, or use engine qdrant" (int $i.deployment.max_replicas)) -}}{{- end -}}
{{- if ne .Values.models.storage.kind "pvc" -}}{{- fail "settings.index.engine edge keeps the index under settings.home, and emptyDir loses it with the pod: set models.storage.kind pvc" -}}{{- end -}}
{{- if ne .Values.rayService.upgradeStrategy "None" -}}{{- fail (printf "rayService.upgradeStrategy %s starts a second cluster, but the embedded engine allows one process a path: set rayService.upgradeStrategy None, or use engine qdrant" .Values.rayService.upgradeStrategy) -}}{{- end -}}
{{- if $url -}}{{- fail "settings.index.engine edge has no server, but settings.index.url is set: remove it, or use engine qdrant" -}}{{- end -}}
{{- if gt (int $i.replication_factor) 1 -}}{{- fail "settings.index.engine edge has no replicas: set settings.index.replication_factor to 1" -}}{{- end -}}
{{- if or (ne (int $i.shards) 1) $i.on_disk -}}{{- fail "settings.index.engine edge does not use settings.index.shards and on_disk: set shards to 1 and on_disk to false" -}}{{- end -}}
{{- if or (ne $i.payload "auto") (ne (int $i.m) 16) (ne (int $i.ef_construct) 100) (ne $i.quantization "none") (ne (float64 $i.oversampling) 2.0) -}}{{- fail "settings.index.engine edge does not use settings.index.payload, m, ef_construct, quantization and oversampling: remove them" -}}{{- end -}}
{{- if and $i.ef (not $i.graph_from) -}}{{- fail "settings.index.engine edge uses settings.index.ef only with a graph: set settings.index.graph_from, or remove ef" -}}{{- end -}}
{{- else -}}
{{- if $i.graph_from -}}{{- fail "settings.index.engine qdrant does not use settings.index.graph_from, because its server builds its own graph: remove it" -}}{{- end -}}
{{- if eq $q.mode "none" -}}{{- fail "settings.index.engine qdrant needs a server: set qdrant.mode bundled, or external with settings.index.url" -}}{{- end -}}
{{- if and (eq $q.mode "external") (not $url) -}}{{- fail "qdrant.mode external needs settings.index.url, such as https://qdrant.example:6333" -}}{{- end -}}
{{- if and (eq $q.mode "bundled") $url -}}{{- fail (printf "qdrant.mode bundled has its own address, but settings.index.url is %s: remove the url, or set mode external" $i.url) -}}{{- end -}}
{{- if and (eq $q.mode "external") (hasPrefix "http://" (toString $i.url)) $q.apiKey.existingSecret -}}{{- fail (printf "settings.index.url %s would carry the API key in clear text: use https" $i.url) -}}{{- end -}}
{{- if and (eq $q.mode "external") $q.snapshots.enabled -}}{{- fail "qdrant.snapshots.enabled is for the bundled Qdrant: set it to false, and snapshot yours by its own means" -}}{{- end -}}
{{- if and (eq $q.mode "external") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}{{- fail "qdrant.mode external, but networkPolicy.egress is empty: the workers could not reach it; add an entry such as {ipBlock: {cidr: 10.0.0.0/8}}" -}}{{- end -}}
{{- end -}}
{{- if eq $q.mode "bundled" -}}
{{- if gt (int $i.replication_factor) (int $q.replicas) -}}{{- fail (printf "settings.index.replication_factor %d is above qdrant.replicas %d: a shard can't have two copies on one pod; lower it or add pods" (int $i.replication_factor) (int $q.replicas)) -}}{{- end -}}
{{- if eq (int $q.replicas) 2 -}}{{- fail "qdrant.replicas 2: two pods have no majority when one is lost; use 1, or 3 and more" -}}{{- end -}}
{{- if lt (mul (int $i.shards) (int $i.replication_factor)) (int $q.replicas) -}}{{- fail (printf "settings.index.shards %d times replication_factor %d leaves some of the %d Qdrant pods without data: raise shards" (int $i.shards) (int $i.replication_factor) (int $q.replicas)) -}}{{- end -}}
{{- if and $q.snapshots.enabled $q.snapshots.s3.bucket (not $q.snapshots.s3.existingSecret) -}}{{- fail "qdrant.snapshots.s3.bucket needs qdrant.snapshots.s3.existingSecret with access-key and secret-key" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "matinee.validatePods" -}}
{{- $w := .Values.workers -}}
{{- if and .Values.networkPolicy.enabled .Values.autoscaler.enabled (not .Values.networkPolicy.apiServerCidr) -}}{{- fail "networkPolicy.apiServerCidr is empty: the autoscaler calls the API server, and the policy lets it reach nothing else; set it to the address that `kubectl -n default get endpointslices kubernetes` shows, such as 10.0.0.1/32 (autoscaler.enabled=false needs none)" -}}{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.resolver) -}}{{- fail "networkPolicy.resolver is empty: no pod could look up a name; name the pods or the address of the cluster's resolver" -}}{{- end -}}
{{- if not (or $w.gpu.enabled $w.cpu.enabled) -}}{{- fail "workers.gpu.enabled and workers.cpu.enabled are both false: nothing could run; enable one" -}}{{- end -}}
{{- range $group := list "gpu" "cpu" -}}
{{- $g := index $w $group -}}
{{- if and $g.enabled (lt (int $g.maxReplicas) (int $g.minReplicas)) -}}{{- fail (printf "workers.%s.maxReplicas %d is below minReplicas %d: raise it" $group (int $g.maxReplicas) (int $g.minReplicas)) -}}{{- end -}}
{{- if and $g.enabled (not $.Values.autoscaler.enabled) (ne (int $g.maxReplicas) (int $g.minReplicas)) -}}{{- fail (printf "workers.%s has minReplicas %d and maxReplicas %d, but autoscaler.enabled is false: make them equal, or enable it" $group (int $g.minReplicas) (int $g.maxReplicas)) -}}{{- end -}}
{{- end -}}
{{- if and $w.cpu.models (not (and $w.gpu.enabled $w.cpu.enabled)) -}}{{- fail "workers.cpu.models is for a cpu group beside a gpu group, and one of them is not enabled: set it to false; a cpu group alone runs the models anyway" -}}{{- end -}}
{{- $source := .Values.models.source -}}
{{- range $path := list "embedder.model" "enhancer.model" "enhancer.adapter" -}}
{{- $parts := splitList "." $path -}}
{{- $model := toString (get (index $.Values.settings (index $parts 0)) (index $parts 1)) -}}
{{- if or (eq (index $parts 0) "embedder") (and $.Values.settings.enhancer.enabled (eq $.Values.settings.enhancer.engine "local")) -}}
{{- if and (eq $source "image") (or (hasPrefix "hub:" $model) (hasPrefix "artifact:" $model)) -}}{{- fail (printf "models.source image fetches nothing, but settings.%s is %s: name the folder in the image, or use models.source hub or store" $path $model) -}}{{- end -}}
{{- if and (eq $source "store") (hasPrefix "hub:" $model) -}}{{- fail (printf "models.source store does not reach the hub, but settings.%s is %s: name an artifact:DIGEST, or use models.source hub" $path $model) -}}{{- end -}}
{{- $uri := get $.Values.settings.artifacts "uri" -}}
{{- if and (hasPrefix "artifact:" $model) (or (not $uri) (eq (toString $uri) "null")) -}}{{- fail (printf "settings.%s is %s, but settings.artifacts.uri is not set, so no pod could find it: set it to s3://BUCKET/PATH, or to /artifacts with models.store.existingClaim" $path $model) -}}{{- end -}}
{{- if and (hasPrefix "artifact:" $model) (not (regexMatch "^artifact:[0-9a-f]{64}$" $model)) -}}{{- fail (printf "settings.%s %s: the chart wants the whole digest, 64 hex digits, so that every pod loads the same; `matinee models promote` prints it" $path $model) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.models.store.existingClaim (ne (toString (get .Values.settings.artifacts "uri")) "/artifacts") -}}{{- fail "models.store.existingClaim is mounted at /artifacts, but settings.artifacts.uri is another: set it to /artifacts, or remove the claim" -}}{{- end -}}
{{- $group := include "matinee.modelGroup" . -}}
{{- $claim := .Values.models.storage -}}
{{- if and (eq $claim.kind "pvc") (eq $claim.accessMode "ReadWriteOnce") (gt (int (index $w $group).maxReplicas) 1) -}}{{- fail (printf "models.storage.accessMode ReadWriteOnce can be mounted on one node, but workers.%s.maxReplicas is %d: use ReadWriteMany, emptyDir, or one worker" $group (int (index $w $group).maxReplicas)) -}}{{- end -}}
{{- if and (include "matinee.cpuModels" .) (eq $claim.kind "pvc") (eq $claim.accessMode "ReadWriteOnce") -}}{{- fail "models.storage.accessMode ReadWriteOnce can be mounted on one node, but workers.cpu.models is true: use ReadWriteMany or emptyDir" -}}{{- end -}}
{{- if and $claim.existingClaim (ne $claim.kind "pvc") -}}{{- fail "models.storage.existingClaim is set, but models.storage.kind is emptyDir: set kind pvc, or remove the claim" -}}{{- end -}}
{{- if and .Values.ingest.enabled (hasPrefix "/data" .Values.ingest.source) (not .Values.ingest.existingClaim) -}}{{- fail (printf "ingest.source %s lies on the claim mounted at /data: set ingest.existingClaim" .Values.ingest.source) -}}{{- end -}}
{{- $asks := or (eq .Values.ingest.via "api") (eq .Values.settings.index.engine "edge") -}}
{{- if and .Values.probe.enabled (or .Values.settings.serving.keys .Values.keys.existingSecret) (not .Values.probe.existingSecret) -}}{{- fail "probe.enabled: the probe asks the API, which wants a key: put one with the scope admin (read is enough for all but exact search) into a Secret, and name it in probe.existingSecret" -}}{{- end -}}
{{- if and .Values.ingest.enabled $asks (or .Values.settings.serving.keys .Values.keys.existingSecret) (not .Values.ingest.apiKey.existingSecret) -}}{{- fail "ingest.enabled: the Job asks the API, which wants a key: put one with the scope read into a Secret, and name it in ingest.apiKey.existingSecret" -}}{{- end -}}
{{- with .Values.sync -}}
{{- if .enabled -}}
{{- if eq (empty .source) (empty .query) -}}{{- fail "sync.enabled needs one source: set sync.source, or sync.query with sync.database.existingSecret" -}}{{- end -}}
{{- if and .query (not .database.existingSecret) -}}{{- fail "sync.query: put the database's URL into a Secret, and name it in sync.database.existingSecret" -}}{{- end -}}
{{- if and (or .cursor .deleted) (not .query) -}}{{- fail "sync.cursor and sync.deleted name columns of sync.query: set it, or remove them" -}}{{- end -}}
{{- if and .cursor .schedule -}}{{- fail "sync.cursor is remembered by a pod, and sync.schedule starts a new one each time: remove one of them" -}}{{- end -}}
{{- if and (hasPrefix "/data" .source) (not .existingClaim) -}}{{- fail (printf "sync.source %s lies on the claim mounted at /data: set sync.existingClaim" .source) -}}{{- end -}}
{{- if and (or $.Values.settings.serving.keys $.Values.keys.existingSecret) (not .apiKey.existingSecret) -}}{{- fail "sync.enabled: it writes through the API, which wants a key: put one with the scopes read and write into a Secret, and name it in sync.apiKey.existingSecret" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingest.enabled (eq .Values.ingest.via "api") (get .Values.ingest.settings "embedder") -}}{{- fail "ingest.settings.embedder is not the embedder that serves, but ingest.via api embeds with that one: set ingest.via local" -}}{{- end -}}
{{- if and (eq .Values.rayService.upgradeStrategy "NewClusterWithIncrementalUpgrade") (not .Values.rayService.gatewayClassName) -}}{{- fail "rayService.upgradeStrategy NewClusterWithIncrementalUpgrade moves traffic by a Gateway: set rayService.gatewayClassName, or use NewCluster" -}}{{- end -}}
{{- if and (eq .Values.gcsFaultTolerance.backend "redis") (not .Values.gcsFaultTolerance.redisAddress) -}}{{- fail "gcsFaultTolerance.backend redis needs gcsFaultTolerance.redisAddress, such as redis:6379" -}}{{- end -}}
{{- if and (eq .Values.gcsFaultTolerance.backend "redis") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}{{- fail "gcsFaultTolerance.backend redis, but networkPolicy.egress is empty: the head could not reach it; add an entry for its pods" -}}{{- end -}}
{{- end -}}

{{/* What the replicas ask for must fit what the groups have, with the second copy that a surge starts. */}}
{{- define "matinee.validateGroups" -}}
{{- $root := . -}}
{{- $s := .Values.settings -}}
{{- $copies := ternary 2 1 (gt (int .Values.rollout.maxSurgePercent) 0) -}}
{{- $models := list "embedder" -}}
{{- if $s.enhancer.enabled -}}{{- $models = append $models "enhancer" -}}{{- end -}}
{{- range $part := list "index" "serving" -}}
{{- if gt (float64 (index $s $part).deployment.num_gpus) 0.0 -}}{{- fail (printf "settings.%s.deployment.num_gpus is above 0, but it runs no model: set it to 0" $part) -}}{{- end -}}
{{- end -}}
{{- range $part := $models -}}
{{- $share := float64 (index $s $part).deployment.num_gpus -}}
{{- if and (gt $share 0.0) (not $root.Values.workers.gpu.enabled) -}}{{- fail (printf "settings.%s.deployment.num_gpus is %v, but workers.gpu.enabled is false: set it to 0, or enable the group" $part $share) -}}{{- end -}}
{{- if and (gt $share 1.0) (ne (floor $share) $share) -}}{{- fail (printf "settings.%s.deployment.num_gpus %v: above 1 only whole GPUs can be given; round it" $part $share) -}}{{- end -}}
{{- end -}}
{{- if $root.Values.workers.gpu.enabled -}}
{{- $gpus := mul (int .Values.workers.gpu.maxReplicas) (int .Values.workers.gpu.gpus) -}}
{{- $steady := 0.0 -}}{{- $rolling := 0.0 -}}{{- $wholes := 0 -}}
{{- range $part := $models -}}
{{- $d := (index $s $part).deployment -}}
{{- $share := float64 $d.num_gpus -}}
{{- $steady = addf $steady (mulf $share (float64 $d.max_replicas)) -}}
{{- $least := max 1 (int $d.min_replicas) -}}
{{- $rolling = addf $rolling (mulf $share (float64 $least) (float64 $copies)) -}}
{{- if and (gt $share 0.5) (le $share 1.0) -}}{{- $wholes = add $wholes (mul $least $copies) -}}{{- end -}}
{{- end -}}
{{- if gt $steady (addf (float64 $gpus) 0.000001) -}}{{- fail (printf "GPU shares do not add up: max_replicas times num_gpus of embedder and enhancer is %.2f, but workers.gpu has %d GPUs (maxReplicas times gpus): lower them, or add GPUs" $steady $gpus) -}}{{- end -}}
{{- if gt $rolling (addf (float64 $gpus) 0.000001) -}}{{- fail (printf "GPU shares do not add up in a roll-over: %d copies of min_replicas (1 at least) times num_gpus of embedder and enhancer is %.2f, but workers.gpu has %d GPUs: lower num_gpus, add GPUs, or set rollout.maxSurgePercent 0 (which answers 503 meanwhile)" $copies $rolling $gpus) -}}{{- end -}}
{{- if gt (int $wholes) (int $gpus) -}}{{- fail (printf "GPU shares above 0.5 can't be two on one GPU: the replicas need %d GPUs with the copies of a roll-over, but workers.gpu has %d: lower num_gpus to 0.5, add GPUs, or set rollout.maxSurgePercent 0" (int $wholes) (int $gpus)) -}}{{- end -}}
{{- end -}}
{{- range $group := list "gpu" "cpu" -}}
{{- if (index $root.Values.workers $group).enabled -}}{{- include "matinee.validateRoom" (list $root $group $copies) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* CPUs, memory and places on different pods: (list $ "gpu" copies). */}}
{{- define "matinee.validateRoom" -}}
{{- $root := index . 0 -}}{{- $group := index . 1 -}}{{- $copies := index . 2 -}}
{{- $w := index $root.Values.workers $group -}}
{{- $podGib := divf (include "matinee.replicaMemory" $w) 1073741824.0 -}}
{{- $cpus := 0.0 -}}{{- $gib := 0.0 -}}
{{- range $part := splitList " " (include "matinee.partsOf" (list $root $group)) -}}
{{- $d := (index $root.Values.settings $part).deployment -}}
{{- $least := max 1 (int $d.min_replicas) -}}
{{- if and (gt (int $d.min_replicas) 0) (eq (int $w.minReplicas) 0) -}}{{- fail (printf "workers.%s.minReplicas is 0, but settings.%s.deployment.min_replicas is %d, so a replica always runs there: raise minReplicas, or set min_replicas to 0 (of embedder and enhancer alone)" $group $part (int $d.min_replicas)) -}}{{- end -}}
{{- if gt (float64 $d.num_cpus) (float64 $w.cpus) -}}{{- fail (printf "settings.%s.deployment.num_cpus %v does not fit a pod of workers.%s with %d CPUs: lower it, or raise workers.%s.cpus" $part $d.num_cpus $group (int $w.cpus) $group) -}}{{- end -}}
{{- if gt (float64 $d.memory_gib) $podGib -}}{{- fail (printf "settings.%s.deployment.memory_gib %v does not fit a pod of workers.%s, which has %.1f GiB for replicas (85 %% of workers.%s.memory %s): lower it, or raise the memory" $part $d.memory_gib $group $podGib $group $w.memory) -}}{{- end -}}
{{- with int $d.max_replicas_per_node -}}
{{- if gt (int $d.max_replicas) (mul . (int $w.maxReplicas)) -}}{{- fail (printf "settings.%s.deployment.max_replicas_per_node %d leaves no place for max_replicas %d on workers.%s.maxReplicas %d pods: raise it, or lower max_replicas" $part . (int $d.max_replicas) $group (int $w.maxReplicas)) -}}{{- end -}}
{{- if and (gt (int $d.min_replicas) 0) (gt (add $d.min_replicas $copies -1 | int) (mul . (int $w.minReplicas) | int)) -}}{{- fail (printf "settings.%s.deployment.max_replicas_per_node %d leaves no place for min_replicas %d and a copy in a roll-over on workers.%s.minReplicas %d pods: raise it or minReplicas, or lower min_replicas" $part . (int $d.min_replicas) $group (int $w.minReplicas)) -}}{{- end -}}
{{- end -}}
{{- $cpus = addf $cpus (mulf (float64 $d.num_cpus) (float64 $least) (float64 $copies)) -}}
{{- $gib = addf $gib (mulf (float64 $d.memory_gib) (float64 $least) (float64 $copies)) -}}
{{- end -}}
{{- $spare := $root.Values.settings.embedder.cpu_deployment -}}
{{- if and $root.Values.settings.embedder.cpu_fallback (eq $group "cpu") -}}
{{- $cpus = addf $cpus (mulf (float64 $spare.num_cpus) (float64 $spare.min_replicas) (float64 $copies)) -}}
{{- $gib = addf $gib (mulf (float64 $spare.memory_gib) (float64 $spare.min_replicas) (float64 $copies)) -}}
{{- end -}}
{{- $have := mul (int $w.cpus) (int $w.maxReplicas) -}}
{{- if gt $cpus (addf (float64 $have) 0.000001) -}}{{- fail (printf "workers.%s has %d CPUs (maxReplicas times cpus), but its replicas need %.1f with the copies of a roll-over: lower num_cpus or min_replicas, or add CPUs" $group $have $cpus) -}}{{- end -}}
{{- $haveGib := mulf $podGib (float64 $w.maxReplicas) -}}
{{- if gt $gib (addf $haveGib 0.000001) -}}{{- fail (printf "workers.%s has %.1f GiB for replicas (maxReplicas times 85 %% of memory), but they need %.1f with the copies of a roll-over: lower memory_gib or min_replicas, or add memory" $group $haveGib $gib) -}}{{- end -}}
{{- end -}}
