"""sentence-transformers as a subject: `sentence-transformers.py <model directory>`; see lib/subject.mjs for the protocol."""

import json
import sys
import time

try:
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer, __version__
except ImportError as error:
    print(json.dumps({"absent": str(error)}), flush=True)
    sys.exit(0)

transformers.logging.set_verbosity_error()
model = SentenceTransformer(sys.argv[1], device="cpu")
texts: list[str] = []


def embed(some, batch):
    return model.encode(some, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


def timed(some, batch):
    start, cpu = time.perf_counter(), time.process_time()
    vectors = embed(some, batch)
    return {"ms": 1000 * (time.perf_counter() - start), "cpu": 1000 * (time.process_time() - cpu)}, vectors


for line in sys.stdin:
    request = json.loads(line)
    match request["do"]:
        case "version":
            answer = {"version": f"sentence-transformers {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"}
        case "take":
            texts = request["texts"]
            answer = {}
        case "vectors":
            answer = {"vectors": embed([texts[i] for i in request["positions"]], 32).tolist()}
        case "encode":
            answer, _ = timed(texts, request["batch"])
        case "query":
            figures, vectors = timed([request["text"]], 1)
            answer = {**figures, "vector": vectors[0].tolist()}
        case other:
            answer = {"error": f"no such request: {other}"}
    print(json.dumps(answer), flush=True)
