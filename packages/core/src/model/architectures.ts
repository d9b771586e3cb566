/** Every architecture that can be run, by its configuration. */
import type { Backbone } from "./backbone.js";
import type { BackboneConfig } from "./backbone-config.js";
import { bert } from "./bert.js";
import type { GraphWeights } from "./graph-weights.js";
import { modernBert } from "./modern-bert.js";
import { nomicBert } from "./nomic-bert.js";

/** Writes the graph of a backbone of any supported architecture. */
export function backboneOf(config: BackboneConfig, weights: GraphWeights): Backbone {
  switch (config.architecture) {
    case "bert":
      return bert(config, weights);
    case "nomic-bert":
      return nomicBert(config, weights);
    case "modernbert":
      return modernBert(config, weights);
  }
}
