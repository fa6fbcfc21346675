"""What a run leaves: one folder, from the stages' results.

    <out>/
    ├── model/             loads with plain transformers: safetensors, tokenizer, generation config
    ├── data/              train, validation, test, predictions; and each source as it came: retrieved, generated, user-0, ...
    ├── metrics.json       scores, comparisons and the verdict
    ├── report.html        by `report.write(folder, record)`
    ├── model_card.md      by `model_card.write(folder, record)`
    └── run.json           the record

The record (run.json) is one JSON object with these keys, always all of them; a stage that did not run has None:

    name            str
    prompt          str, whole
    created, ended  str, ISO 8601 in UTC
    options         {option: value}, only those that were set; field names of RunOptions
    spec            {instruction, demonstrations [{input, output}], language, original_instruction, method "llm" or "rules",
                    notes [str]}
    stages          [{name, state "done" | "skipped" | "failed", message, seconds float | None, ledger | None}], in order:
                    parse, datasets, generate, models, prepare, train, evaluate, report
    chosen          {dataset: {id, config, input_columns [str], output_column, why, score, licence, rows int, by} | None,
                     model: {id, location, architecture, why, score, size_bytes, downloads, learning_rate, flags [str], by},
                     hypothetical_card: str}       by: "llm", "score", "person" or "option"
    alternatives    {datasets: [{id, score, why, parts {name: value}, reachable bool, description}],
                     models: [{id, score, why, parts {name: value}, size_bytes, downloads, location, flags, description}]}
                    best first, the chosen one among them, at most 25 and 10
    excluded_models [{id, reason}]
    generation      {rows int, dropped {reason: int}, stop_reason "number" | "budget" | "nothing_new", llm str, parts int} | None
    prepare         {counts [{source, kind "retrieved" | "generated" | "user", split, rows}], removed {reason: int}, notes [str]}
    data_by_source  {source: {train int, validation int, test int, kind}}
    training        {history [{step, epoch, train_loss, validation_loss float | None}], best_step, parameters, seconds,
                    weights_sha256, notes [str], hyper_parameters {name: value, only those that were set},
                    resumed bool, resumed_from_step int | None}
    evaluation      {scores [{contestant, slice, metric, estimate {value, low, high}, rows}],
                     comparisons [{against, metric, difference {value, low, high}, rows}],
                     verdict "ship" | "do_not_ship" | "not_enough_evidence", verdict_reason str, ceiling float,
                     bertscore_encoder str, notes [str]}
    samples         [{input, output, source, real bool, predictions {contestant: str | None}, correct bool}]: the first 30 test
                    rows, and after them up to 30 more that the student got wrong; correct is normalised exact match
    ledger          {stages {stage: ledger}, total ledger}; a ledger is {requests, prompt_tokens, completion_tokens, dollars,
                    replayed, invalid}
    artifacts       {name: {uri, sha256, size_bytes, media_type}}: model, base, train, validation, test, predictions,
                    retrieved, generated-<part>, user-<i>; those that there are

Scores are percentages (0 to 100).
"""
