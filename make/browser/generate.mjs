// Makes the two generated files of gateway/console/static: message.js from schema/message.fbs (flatc --ts, bundled
// and type-stripped by esbuild) and flatbuffers.js from the npm package. usage: generate.mjs FLATC OUTPUT_DIR
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const [flatc, output] = process.argv.slice(2).map((path) => resolve(path)); // esbuild would take them from its own folder
const here = dirname(fileURLToPath(import.meta.url));
const schema = join(here, "../../schema/message.fbs");
const npm = join(here, "node_modules/flatbuffers");
const { version } = JSON.parse(readFileSync(join(npm, "package.json"), "utf8"));
const options = { bundle: true, format: "esm", target: "es2022", charset: "utf8", legalComments: "none", logLevel: "warning" };

mkdirSync(output, { recursive: true });
const scratch = mkdtempSync(join(tmpdir(), "gateway-fbs-"));
try {
  execFileSync(flatc, ["--ts", "-o", scratch, schema], { stdio: ["ignore", "ignore", "inherit"] });
  await build({
    ...options,
    absWorkingDir: scratch, // keeps the machine's paths out of the comments that esbuild writes
    entryPoints: ["im/protocol.ts"],
    outfile: join(output, "message.js"),
    banner: { js: "// Generated from schema/message.fbs by `make browser-generate`; do not edit." },
    plugins: [
      {
        name: "vendored flatbuffers",
        setup(plugin) {
          plugin.onResolve({ filter: /^flatbuffers$/ }, () => ({ path: "./flatbuffers.js", external: true }));
        },
      },
    ],
  });
} finally {
  rmSync(scratch, { recursive: true });
}
await build({
  ...options,
  absWorkingDir: npm,
  entryPoints: ["mjs/flatbuffers.js"],
  outfile: join(output, "flatbuffers.js"),
  banner: { js: `// flatbuffers ${version} from npm, bundled by \`make browser-generate\`; Apache-2.0, see flatbuffers.LICENSE.txt.` },
});
copyFileSync(join(npm, "LICENSE"), join(output, "flatbuffers.LICENSE.txt"));
