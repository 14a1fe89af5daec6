// The four names that the host of the script gives to the function around the bundle.

import type { Host } from "./types";

declare global {
  const element: Host["element"];
  const props: Host["props"];
  const watch: Host["watch"];
  const trigger: Host["trigger"];
}
