"""sentence-transformers in training: `train-step.py <model directory> <threads>`; see lib/subject.mjs for the protocol."""

import json
import sys
import time

try:
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer, __version__
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
except ImportError as error:
    print(json.dumps({"absent": str(error)}), flush=True)
    sys.exit(0)

transformers.logging.set_verbosity_error()
torch.set_num_threads(int(sys.argv[2]))
model = SentenceTransformer(sys.argv[1], device="cpu")
model.eval()  # no dropout, so that the loss is that of the same function
loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=32)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8, weight_decay=0.01)
columns: list[list[str]] = []


def step():
    features = [model.preprocess(texts) for texts in columns]
    optimizer.zero_grad()
    value = loss(features, None)
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {"loss": value.item(), "norm": norm.item()}


for line in sys.stdin:
    request = json.loads(line)
    match request["do"]:
        case "version":
            answer = {"version": f"sentence-transformers {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"}
        case "take":
            model.max_seq_length = request["maxTokens"]
            columns = [list(column) for column in zip(*request["pairs"])]
            answer = step()
        case "step":
            start, cpu = time.perf_counter(), time.process_time()
            answer = step()
            answer |= {"ms": 1000 * (time.perf_counter() - start), "cpu": 1000 * (time.process_time() - cpu)}
        case other:
            answer = {"error": f"no such request: {other}"}
    print(json.dumps(answer), flush=True)
