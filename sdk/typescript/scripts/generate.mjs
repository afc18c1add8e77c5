// Writes src/generated.ts: the types of the messages that this package uses, from
// the OpenAPI document of LLM Proxy. With --write into the file, else to stdout.
import { readFileSync, writeFileSync } from "node:fs";

const document = JSON.parse(readFileSync(new URL("../../../gen/api.swagger.json", import.meta.url), "utf8"));

// The calls that this package makes. What they send and receive, and what that
// refers to, is written.
const calls = [
  "KeyService_IssueSessionKey", "TeamService_EnsureTeam", "KeyService_RevokeKeys", "ProxyService_EndSession", "SpendService_ListSpend",
];

// v1Key, or keysvcv1Key where several packages have one, is Key.
const typeName = (definition) => definition.replace(/^([a-z]*v1|\w+Service(?=\w+Body$))/, "");
const refName = (ref) => ref.replace("#/definitions/", "");

function typeOf(schema) {
  if (schema.$ref) return typeName(refName(schema.$ref));
  switch (schema.type) {
    case "array": return `${typeOf(schema.items)}[]`;
    case "boolean": return "boolean";
    case "integer": case "number": return "number";
    case "object": return `Record<string, ${schema.additionalProperties ? typeOf(schema.additionalProperties) : "unknown"}>`;
    case "string": return schema.enum ? schema.enum.map((v) => JSON.stringify(v)).join(" | ") : "string";
    default: throw new Error(`a schema of the unknown type ${schema.type}`);
  }
}

// Messages and instants that are not set are null in an answer.
function fieldType(schema) {
  const target = schema.$ref && document.definitions[refName(schema.$ref)];
  return typeOf(schema) + (schema.format === "date-time" || target?.properties ? " | null" : "");
}

function comment(text, indent) {
  if (!text) return "";
  const lines = text.replaceAll("*/", "* /").split("\n").map((line) => line.trim());
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`.trimEnd() + "\n").join("")}${indent} */\n`;
}

function declare(name, schema) {
  if (schema.type !== "object" || !schema.properties) {
    return `${comment(schema.description, "")}export type ${typeName(name)} = ${typeOf(schema)};\n`;
  }
  const fields = Object.entries(schema.properties).map(([field, value]) =>
    `${comment(value.description, "  ")}  ${field}?: ${fieldType(value)};\n`);
  return `${comment(schema.description, "")}export interface ${typeName(name)} {\n${fields.join("")}}\n`;
}

function reachable() {
  const found = new Map(); // definitions by the names of their types
  const walk = (value) => {
    if (value === null || typeof value !== "object") return;
    if (typeof value.$ref === "string") visit(refName(value.$ref));
    Object.values(value).forEach(walk);
  };
  const visit = (name) => {
    const known = found.get(typeName(name));
    if (known === name) return;
    if (known) throw new Error(`${known} and ${name} would be one type`);
    found.set(typeName(name), name);
    walk(document.definitions[name]);
  };
  const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));
  for (const call of calls) {
    const operation = operations.find((o) => o.operationId === call);
    if (!operation) throw new Error(`the document has no ${call}`);
    walk([operation.parameters, operation.responses["200"]]);
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, name]) => name);
}

const text = "// Written by scripts/generate.mjs from gen/api.swagger.json; do not edit.\n" +
  "// 64-bit integers, money among them, are strings.\n\n" +
  reachable().map((name) => declare(name, document.definitions[name])).join("\n");

if (process.argv.includes("--write")) writeFileSync(new URL("../src/generated.ts", import.meta.url), text);
else process.stdout.write(text);
