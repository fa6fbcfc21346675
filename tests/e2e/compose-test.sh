#!/usr/bin/env bash
# Builds the images and has tests/e2e/test_containers.py start the stack, run prompts through it, scale, kill and stop it.
#
# With an engine on this machine it uses that. Without one it starts what ../shared/tools/container-engine.sh gives: a real
# engine and Compose from packages, no registry; object store and database then come from tests/e2e/images.
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${P2M_CONTAINER_ENGINE:-../shared/tools/container-engine.sh}
test="$PWD/.venv/bin/python -m pytest -x -s -m compose tests/e2e/test_containers.py"

if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
  docker compose --profile demo build
  docker build -q -f tests/e2e/images/teacher.Dockerfile -t p2m-test-teacher tests/e2e/images
  docker build -q -f services/Dockerfile --target bill --build-arg SERVICE=parser -t p2m-bill-parser .
  exec $test
fi
if [ ! -x "$engine" ]; then
  echo "No container engine answers, and there is no $engine to start one. Install Docker with Compose." >&2
  exit 1
fi
export COMPOSE_FILE=docker-compose.yml:tests/e2e/compose.local.yml
export OBJECT_STORE_IMAGE=p2m-test-object-store POSTGRES_IMAGE=p2m-test-postgres
images=tests/e2e/images
"$engine" "${P2M_CONTAINER_FOLDER:-$(mktemp -d)}" "
  set -e
  docker build -q --network=host -f $images/object-store.Dockerfile -t $OBJECT_STORE_IMAGE $images
  docker build -q --network=host -f $images/postgres.Dockerfile -t $POSTGRES_IMAGE $images
  docker build -q --network=host -f $images/teacher.Dockerfile -t p2m-test-teacher $images
  docker compose --profile demo build -q
  docker build -q --network=host -f services/Dockerfile --target bill --build-arg SERVICE=parser \
    --build-arg BASE_IMAGE=python:3.11-slim -t p2m-bill-parser .
" "$test"
