/** The public surface of this package, by name. */
export {};
