declare const PROBE_WORD: string;

Object.assign(globalThis, { probeSetUp: PROBE_WORD });
