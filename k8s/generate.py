"""The RayJobs of `k8s/jobs`: one manifest, whose jobs differ in a line or two. `k8s/jobs/base.yaml` is written by hand."""

from dataclasses import dataclass
from pathlib import Path

JOBS = Path(__file__).parent / "jobs"

HUB = """                - name: HF_TOKEN
                  valueFrom: {secretKeyRef: {name: hub, key: token}}
"""
QDRANT = """                # As in the serving release's settings.index; the key of its Secret, copied into a Secret here.
                - {name: MATINEE_CATALOGUE, value: films}
                - {name: MATINEE_INDEX__SHARDS, value: "3"}
                - {name: MATINEE_INDEX__REPLICATION_FACTOR, value: "2"}
                - name: MATINEE_INDEX__API_KEY
                  valueFrom: {secretKeyRef: {name: qdrant, key: api-key}}
"""
GATED = "Gemma is gated: kubectl -n matinee-train create secret generic hub --from-literal=token=hf_..."


@dataclass(frozen=True)
class Job:
    """One RayJob: what it does (comment lines), its command, and what it needs."""

    name: str
    does: tuple[str, ...]
    command: str
    hours: int
    gpu: bool = True
    retries: int = 1
    env: str = ""


ALL = (
    Job(
        "prepare",
        ("A catalogue on the volume (/data/films.csv) -> clean items with a split under /data/prepared.",),
        "python -m train.prepare /data/films.csv --out /data/prepared --kind film",
        hours=2,
        gpu=False,
    ),
    Job(
        "triplets",
        (
            "Prepared items, and the training side of labelled queries (/data/sets: an empty folder where there are none)",
            "-> pairs under /data/triplets.",
        ),
        "python -m train.triplets /data/prepared --sets /data/sets --out /data/triplets",
        hours=4,
    ),
    Job(
        "embedder",
        ("Triplets -> a fine-tuned embedder, published under MATINEE_ARTIFACTS__URI. Resumes from its last checkpoint.",),
        "python -m train.embedder /data/triplets --prepared /data/prepared --sets /data/sets --out /data/embedder --gpu",
        hours=12,
        retries=2,
    ),
    Job(
        "soup",
        ("The mean of tuned embedders (name as many as there are) and the base they came from, published under MATINEE_ARTIFACTS__URI.",),
        "python -m train.soup /data/embedder --out /data/soup",
        hours=2,
        gpu=False,
    ),
    Job(
        "evaluate",
        (
            "The tuned embedder before and after, on the held-out side of labelled queries (/data/sets): /data/report/report.html.",
            "The fusion is the API's own, fixed: the test split is there to judge by, not to choose weights on.",
        ),
        "python -m train.evaluate /data/prepared --sets /data/sets --after /data/embedder/model --split test --fusion linear:0.015"
        " --out /data/report",
        hours=4,
    ),
    Job(
        "pipeline",
        (
            "The paper's embedding half in one job: a catalogue on the volume (/data/films.csv) -> prepare, triplets, embedder, evaluate,",
            "with their defaults and in the same folders, and with labelled queries (/data/sets: an empty folder where there are none).",
            "The report: /data/report/report.html. Goes on where it was.",
        ),
        "python -m train.pipeline /data/films.csv --kind film --sets /data/sets --out /data --gpu",
        hours=12,
        retries=2,
    ),
    Job(
        "instructions",
        ("Prepared items -> pairs of metadata and text for the enhancer under /data/instructions.",),
        "python -m train.instructions /data/prepared --target overview --out /data/instructions",
        hours=2,
        gpu=False,
    ),
    Job(
        "enhancer",
        (
            "Instruction pairs -> a LoRA adapter for the enhancer, published under MATINEE_ARTIFACTS__URI.",
            "Resumes from its last checkpoint.",
            GATED,
        ),
        "python -m train.enhancer /data/instructions --out /data/enhancer --precision nf4 --gpu",
        hours=12,
        retries=2,
        env=HUB,
    ),
    Job(
        "describe",
        ("Prepared items -> a description of each by the tuned enhancer: /data/descriptions.jsonl. Goes on where it was.", GATED),
        "python -m train.describe /data/prepared --adapter /data/enhancer/enhancer-lora --out /data/descriptions.jsonl",
        hours=24,
        retries=2,
        env=HUB,
    ),
    Job(
        "preference",
        (
            "A rater's preferences (a sheet of `train.ratings`; name as many as there are) -> a better adapter, published only if facts",
            "and wording don't suffer; otherwise it fails with exit code 8. Resumes from its last checkpoint.",
            GATED,
        ),
        "python -m train.preference /data/preferences/sheets/anna.csv --adapter /data/enhancer/enhancer-lora"
        " --prepared /data/prepared --instructions /data/instructions --out /data/preference --gpu",
        hours=12,
        env=HUB,
    ),
    Job(
        "ingest",
        (
            "A catalogue on the volume -> a new index version in the serving release's Qdrant, embedded on this job's GPU, and the switch.",
            "For catalogues that take the chart's own ingest Job too long. Goes on where it was.",
            'The release has to let it in: --set-json \'networkPolicy.qdrantClients=[{"namespaceSelector":',
            '{"matchLabels": {"kubernetes.io/metadata.name": "matinee-train"}}}]\'',
            "The key: kubectl -n matinee-train create secret generic qdrant --from-literal=api-key=...",
        ),
        "python -m train.ingest /data/films.csv --kind film --via local --rejects /data --json",
        hours=24,
        retries=2,
        env=QDRANT,
    ),
)

MANIFEST = """\
{comment}
# kubectl apply -f k8s/jobs/{name}.yaml && kubectl -n matinee-train logs -f job/{name}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {name}
  namespace: matinee-train
spec:
  entrypoint: >-
    {command}
  submissionMode: K8sJobMode
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 60
  backoffLimit: {retries}
  activeDeadlineSeconds: {seconds}
  submitterPodTemplate:
    spec:
      restartPolicy: Never
      enableServiceLinks: false
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: ray-job-submitter
          image: {image}
          env: [{{name: HOME, value: /tmp}}]
          resources:
            requests: {{cpu: 250m, memory: 512Mi}}
            limits: {{cpu: 250m, memory: 512Mi}}
          securityContext: &container
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            runAsNonRoot: true
            capabilities: {{drop: [ALL]}}
            seccompProfile: {{type: RuntimeDefault}}
          volumeMounts: [{{name: tmp, mountPath: /tmp}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
  rayClusterSpec:
    rayVersion: 2.60.0
    authOptions: {{mode: token}}
    # One node does it all: the job's processes run beside the head.
    headGroupSpec:
      rayStartParams: {{dashboard-host: 0.0.0.0}}
      template:
        spec:
          enableServiceLinks: false
          automountServiceAccountToken: false
          securityContext:
            runAsNonRoot: true
            runAsUser: 1000
            runAsGroup: 1000
            fsGroup: 1000
            fsGroupChangePolicy: OnRootMismatch
            seccompProfile: {{type: RuntimeDefault}}
{tolerations}          containers:
            - name: ray-head
              image: {image}
              env:
                - {{name: HOME, value: /tmp}}
                - {{name: XDG_CACHE_HOME, value: /tmp/cache}}
                - {{name: HF_HOME, value: /data/hub}}
                - {{name: MATINEE_PROFILE, value: gpu}}
                - {{name: MATINEE_HOME, value: /data/home}}
                - {{name: MATINEE_ARTIFACTS__URI, value: /data/artifacts}}
                # The gpu profile wants a server; no job but ingest talks to it.
                - {{name: MATINEE_INDEX__URL, value: "http://matinee-qdrant.matinee:6333"}}
{env}              ports:
                - {{name: gcs-server, containerPort: 6379}}
                - {{name: dashboard, containerPort: 8265}}
                - {{name: client, containerPort: 10001}}
                - {{name: metrics, containerPort: 8080}}
              resources:
                requests: {{{resources}}}
                limits: {{{resources}}}
              securityContext: *container
              volumeMounts:
                - {{name: work, mountPath: /data}}
                - {{name: tmp, mountPath: /tmp}}
          volumes:
            - name: work
              persistentVolumeClaim: {{claimName: work}}
            - name: tmp
              emptyDir: {{}}
"""
TOLERATIONS = """          tolerations:
            - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
"""


def manifest(job: Job) -> str:
    return MANIFEST.format(
        comment="\n".join(f"# {line}" for line in job.does),
        name=job.name,
        command=job.command,
        retries=job.retries,
        seconds=job.hours * 3600,
        image=f"matinee:0.1.0-{'gpu' if job.gpu else 'cpu'}",
        tolerations=TOLERATIONS if job.gpu else "",
        env=job.env,
        resources='cpu: "6", memory: 24Gi, nvidia.com/gpu: "1"' if job.gpu else 'cpu: "4", memory: 8Gi',
    )


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    return {JOBS / f"{job.name}.yaml": manifest(job) for job in ALL}
