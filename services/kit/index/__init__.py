"""A catalogue's index: BM25 and, where the entries are encoded, FAISS, over the same entries. Saved and loaded whole.

    <folder>/current                   the name of the version that counts
             <version>/manifest.json   what it was made with, how many entries, size and digest of every file
                       entries.*       one entry a line, as JSON, and where each line begins
                       ids.*, texts.*  each entry's id and what was indexed of it, to be found by what they say
                       facts/          a number of each entry: its downloads, its size
                       bm25/           bm25s's sparse arrays and the words; absent where no entry holds one
                       vectors.*       embeddings, exact or (in a large index) quantised; absent where there are none

    save(folder, entries, texts, ...)     writes a version beside the others, then makes it the one that counts
    Index.load(folder, ...)               maps the version that counts into memory; nothing of it is read in whole

    folder     versions, manifests, digests       lines      strings on disk, found by number and by what they say
    lexical    BM25                               vectors    FAISS
    saving     save                               opened     Index
    scores     ranked, highest, standardised

Entries are dicts with a unique "id", numbered from 0 in the order in which they were saved. None is held in memory: an
index of two million opens in a moment.
"""

from services.kit.index.folder import FORMAT, Manifest, check, current, place, read_manifest, staging
from services.kit.index.opened import Index
from services.kit.index.saving import save
from services.kit.index.scores import Hit, Numbers, Scores, highest, ranked, standardised

__all__ = [
    "FORMAT",
    "Hit",
    "Index",
    "Manifest",
    "Numbers",
    "Scores",
    "check",
    "current",
    "highest",
    "place",
    "ranked",
    "read_manifest",
    "save",
    "staging",
    "standardised",
]
