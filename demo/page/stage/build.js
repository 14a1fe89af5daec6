// Bundles the script: node build.js. The first lines of the bundle name its sources and itself by hash, so
// that the program's tests notice an old or edited bundle without node.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
const BUNDLE = "stage.bundle.js";

/** @param {string[]} texts */
function hashOf(texts) {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(text);
  return hash.digest("hex");
}

/** The files that the bundle depends on. tests/unit/test_stage_script.py reads the same. */
function sources() {
  const scripts = readdirSync(join(FOLDER, "src")).filter((name) => name.endsWith(".js"));
  const others = ["build.js", "package-lock.json", "protocol.json"];
  return [...others, ...scripts.sort().map((name) => `src/${name}`)];
}

const { outputFiles } = await build({
  absWorkingDir: FOLDER,
  entryPoints: ["src/main.js"],
  bundle: true,
  format: "iife",
  charset: "utf8",
  target: "es2022",
  write: false,
  legalComments: "none",
  tsconfigRaw: {},
});
const body = outputFiles[0]?.text ?? "";
const header = [
  "// Made from src/ and protocol.json by `npm run build`; do not edit.",
  `// Sources: ${hashOf(sources().map((name) => readFileSync(join(FOLDER, name), "utf-8")))}`,
  `// Bundle: ${hashOf([body])}`,
];
writeFileSync(join(FOLDER, BUNDLE), `${header.join("\n")}\n${body}`);
