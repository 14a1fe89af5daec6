// Bundles the scripts: node build.js. The first lines of a bundle name its sources and itself by hash, so that
// the program's tests notice an old or edited bundle without node.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
/** Bundle -> the script that it begins with: the stage, the page while an axis is made, and those of a class. */
const BUNDLES = {
  "stage.bundle.js": "src/main.js",
  "making.bundle.js": "making/making.js",
  "phone.bundle.js": "classroom/phone.js",
  "board.bundle.js": "classroom/board.js",
  "follow.bundle.js": "classroom/follow.js",
};

/** @param {string[]} texts */
function hashOf(texts) {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(text);
  return hash.digest("hex");
}

/** @param {string} folder */
function scripts(folder) {
  const names = readdirSync(join(FOLDER, folder)).filter((name) => name.endsWith(".js"));
  return names
    .filter((name) => !name.endsWith(".bundle.js"))
    .sort()
    .map((name) => `${folder}/${name}`);
}

/** The files that a bundle depends on. tests/unit/test_stage_script.py reads the same. */
function sources() {
  const own = ["src", "making", "classroom"].flatMap(scripts);
  return ["build.js", "package-lock.json", "protocol.json", ...own];
}

for (const [bundle, entry] of Object.entries(BUNDLES)) {
  const { outputFiles } = await build({
    absWorkingDir: FOLDER,
    entryPoints: [entry],
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
    "// Made from its sources by `npm run build`; do not edit.",
    `// Sources: ${hashOf(sources().map((name) => readFileSync(join(FOLDER, name), "utf-8")))}`,
    `// Bundle: ${hashOf([body])}`,
  ];
  writeFileSync(join(FOLDER, bundle), `${header.join("\n")}\n${body}`);
}
