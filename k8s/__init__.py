"""Prerequisites, RayJobs and runbooks for a cluster, and what generates the jobs."""
