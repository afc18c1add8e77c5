import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const file = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));

test("the types are those of the OpenAPI document", () => {
  const want = execFileSync(process.execPath, [file("scripts/generate.mjs")], { encoding: "utf8" });
  assert.ok(readFileSync(file("src/generated.ts"), "utf8") === want, "src/generated.ts is not current: run npm run generate and commit it");
});

test("nothing is needed at run time", () => {
  const { dependencies } = JSON.parse(readFileSync(file("package.json"), "utf8"));
  assert.equal(dependencies, undefined);
});
