"""Golden figures of scikit-learn and scipy for the uses of embeddings beside retrieval; prints JSON."""
import json, numpy as np, sklearn, scipy
from scipy.stats import spearmanr, pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, homogeneity_completeness_v_measure
from sklearn.neighbors import KNeighborsClassifier

rng = np.random.default_rng(7)
def unit(x):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.round(x, 5)
centres = rng.normal(size=(3, 6))
names = np.array(["finance", "law", "medicine"])
ytrain = rng.integers(0, 3, 60); ytest = rng.integers(0, 3, 30)
xtrain = unit(centres[ytrain] + 1.4 * rng.normal(size=(60, 6)))
xtest = unit(centres[ytest] + 1.4 * rng.normal(size=(30, 6)))
# the library reads float32
xtrain = xtrain.astype(np.float32); xtest = xtest.astype(np.float32)
out = {"versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__, "numpy": np.__version__}}
cls = {"train": {"vectors": [[round(float(v), 5) for v in r] for r in xtrain], "labels": names[ytrain].tolist()},
       "test": {"vectors": [[round(float(v), 5) for v in r] for r in xtest], "labels": names[ytest].tolist()}}
cls["probes"] = []
for c in (1.0, 20.0):
    m = LogisticRegression(C=c, tol=1e-10, max_iter=10000).fit(xtrain.astype(np.float64), names[ytrain])
    p = m.predict(xtest.astype(np.float64))
    cls["probes"].append({"c": c, "classes": m.classes_.tolist(), "weights": m.coef_.tolist(), "intercepts": m.intercept_.tolist(),
        "probabilities": m.predict_proba(xtest.astype(np.float64)).tolist(), "predicted": p.tolist(),
        "accuracy": accuracy_score(names[ytest], p), "macroF1": f1_score(names[ytest], p, average="macro")})
cls["neighbours"] = []
for k in (1, 4, 7):
    m = KNeighborsClassifier(n_neighbors=k, metric="cosine").fit(xtrain, names[ytrain])
    p = m.predict(xtest)
    cls["neighbours"].append({"k": k, "predicted": p.tolist(), "accuracy": accuracy_score(names[ytest], p), "macroF1": f1_score(names[ytest], p, average="macro")})
out["classification"] = cls
cases = {"as labelled": ([0,0,1,1,2,2],[2,2,0,0,1,1]), "one cluster": ([0,0,1,1],[0,0,0,0]), "one label": ([0,0,0,0],[0,1,0,1]),
  "all apart": ([0,0,1,1],[0,1,2,3]), "independent": ([0,0,1,1],[0,1,0,1]),
  "random": (rng.integers(0,5,80).tolist(), rng.integers(0,7,80).tolist()),
  "noisy": (lambda y: (y.tolist(), np.where(rng.random(80) < 0.7, y, rng.integers(0,4,80)).tolist()))(rng.integers(0,4,80))}
out["clustering"] = []
for name,(l,c) in cases.items():
    h,co,v = homogeneity_completeness_v_measure(l,c)
    out["clustering"].append({"name": name, "labels": l, "clusters": c, "homogeneity": h, "completeness": co, "vMeasure": v})
out["correlation"] = []
for name,(a,b) in {"without ties": (rng.normal(size=40), rng.normal(size=40)),
   "graded scores": ((lambda s: (s + 0.8*rng.normal(size=50), s))(rng.integers(0,6,50).astype(float))),
   "many ties": (rng.integers(0,4,60).astype(float), rng.integers(0,3,60).astype(float)),
   "falling": (np.arange(10.0), -np.arange(10.0)**3)}.items():
    out["correlation"].append({"name": name, "a": a.tolist(), "b": b.tolist(), "spearman": float(spearmanr(a,b).statistic), "pearson": float(pearsonr(a,b).statistic)})
print(json.dumps(out))
