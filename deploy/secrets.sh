#!/bin/sh
# What each part's pods are shown, as Secrets on standard output: certificates, keys and passwords, a Secret for each part.
#
#   OPENAI_API_KEY_FILE=key.txt python -m services.kit.installation write identities
#   sh deploy/secrets.sh identities [own] | kubectl apply -f -
#
# "own" is for a store and a database of one's own: own/<part>/<file> takes the place of identities/<part>/<file>, and
# own/all/<file> of every part's. For instance own/orchestrator/p2m_database, own/all/p2m_s3_access_key. The authority's key
# goes to no pod. Doing it again after certificates were renewed brings them to the running pods within a minute or two.
set -eu
identities=$1
own=${2:-}
namespace=${NAMESPACE:-p2m}
umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

secret() {  # NAME FOLDER
    echo "---"
    kubectl create secret generic "$1" --namespace "$namespace" --from-file "$2" --dry-run=client --output yaml
}

for part in parser dataset-retriever generator model-retriever trainer evaluator orchestrator client demo admin; do
    mkdir "$folder/$part"
    for source in "$identities/$part" ${own:+"$own/all" "$own/$part"}; do
        if [ -d "$source" ]; then cp "$source"/* "$folder/$part/"; fi
    done
    secret "p2m-$part" "$folder/$part"
done
secret p2m-object-store "$identities/object-store"
secret p2m-postgres "$identities/postgres"
