/**
 * What another engine needs to answer as the embedded one does: its checks, its splitting, its order of steps. For
 * adapters, such as Qdrant's; it may change in any release.
 */
export { embeddedText, passageSource, refuseRepeated } from "./build-index.js";
export { checkDocument, wellFormedFault } from "./documents.js";
export { ASKED, type AutoFusion, autoMix, fusionFault, fusionOf, mustChoose } from "./fusion/auto-fusion.js";
export { type DrawnPassage, drawLevel, inDrawOrder } from "./fusion/draw.js";
export { DEPTH } from "./fusion/query-weight.js";
export { checkGiven } from "./given-vectors.js";
export { planSearch, planVectorSearch, requireFingerprint, type SearchPlan } from "./search/options.js";
export { type Candidate, hybridRanking, mergedRanking, type Ranking } from "./search/ranking.js";
export { reranked } from "./search/search.js";
export { checkPatch, namedIds, noDocument, refuseRepeatedIds, selection } from "./updates.js";
export { checkK, checkRows, vectorFault } from "./vector-index.js";
