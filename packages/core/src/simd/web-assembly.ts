/** The part of the WebAssembly API that we use: every runtime has it, our library settings (no DOM) don't type it. */
export interface WebAssemblyApi {
  Module: new (bytes: Uint8Array<ArrayBuffer>) => unknown;
  Memory: new (descriptor: { initial: number }) => { readonly buffer: ArrayBuffer };
  Instance: new (
    module: unknown,
    imports: Record<string, Record<string, unknown>>,
  ) => { readonly exports: Record<string, unknown> };
}

export function webAssembly(): WebAssemblyApi {
  return (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
}
