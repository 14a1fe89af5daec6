// The sign at the end of an address that means: its visitor has asked for a live reply already.

export const LIVE = "#live";
