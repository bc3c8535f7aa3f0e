"""`./dev demo`: a conversation continues on another machine, after its worker and its shard were
killed.

One module per job: `options` (the command line), `cluster` (router and shards as processes),
`conversation` (the document, the turns, the tokenizer), `model` (fixed-seed weights, or real ones),
`decode` (greedy generation, timed), `worker` (an inference worker as a process of its own),
`transformers_demo` and `vllm_demo` (the story with either engine: `run(options, console) ->
Report`), `report` and `console` (what a person and a program see).
"""
