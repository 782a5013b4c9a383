/** The OpenRPC document of `rpc.discover`, and a params template made from its schemas. */
import { field, type Json } from "./frames";

export interface JsonSchema {
  $ref?: string;
  type?: string | string[];
  default?: Json;
  const?: Json;
  enum?: Json[];
  examples?: Json[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  allOf?: JsonSchema[];
  description?: string;
  minimum?: number;
}

export interface OpenRpcParam {
  name: string;
  required?: boolean;
  schema?: JsonSchema;
  description?: string;
}

export interface OpenRpcMethod {
  name: string;
  summary?: string;
  description?: string;
  params?: OpenRpcParam[];
  "x-ecan"?: Record<string, Json>;
}

export interface OpenRpcDocument {
  methods: OpenRpcMethod[];
  components?: { schemas?: Record<string, JsonSchema> };
}

/** Deepest nesting a template spells out; recursive schemas end here. */
const MAX_DEPTH = 5;

/** Reads what `rpc.discover` answered; null when it is not such a document. */
export function readDocument(value: Json | undefined): OpenRpcDocument | null {
  const methods = field(value, "methods");
  if (!Array.isArray(methods)) return null;
  const named = methods.filter((m) => typeof field(m, "name") === "string");
  return { ...(value as object), methods: named as unknown as OpenRpcMethod[] };
}

/** A JSON value that fits `schema` as well as a template can: defaults, first enum value, empty of its type. */
export function exampleOf(schema: JsonSchema | undefined, doc: OpenRpcDocument, depth = 0): Json {
  if (!schema || depth > MAX_DEPTH) return null;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop() ?? "";
    return exampleOf(doc.components?.schemas?.[name], doc, depth + 1);
  }
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.examples?.[0] !== undefined) return schema.examples[0];
  if (schema.enum?.[0] !== undefined) return schema.enum[0];
  const choice = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choice) {
    const first = choice.find((s) => s.type !== "null") ?? choice[0];
    return exampleOf(first, doc, depth + 1);
  }
  const type = Array.isArray(schema.type) ? schema.type.find((t) => t !== "null") : schema.type;
  switch (type) {
    case "string":
      return "";
    case "integer":
    case "number":
      return schema.minimum ?? 0;
    case "boolean":
      return false;
    case "array":
      return [];
    case "object":
      return Object.fromEntries(
        Object.entries(schema.properties ?? {})
          .filter(([name]) => !schema.required || schema.required.includes(name))
          .map(([name, property]) => [name, exampleOf(property, doc, depth + 1)]),
      );
    default:
      return null;
  }
}

/** The params of `method` as pretty JSON: the required ones, and optional ones that have a default to show. */
export function paramsTemplate(method: OpenRpcMethod, doc: OpenRpcDocument): string {
  const shown = (method.params ?? []).filter((p) => p.required || (p.schema?.default ?? null) !== null);
  const example = Object.fromEntries(shown.map((p) => [p.name, exampleOf(p.schema, doc)]));
  return JSON.stringify(example, null, 2);
}

/** `name: type` of one parameter for people, with a question mark when it is optional. */
export function paramLabel(param: OpenRpcParam): string {
  const schema = param.schema;
  const type =
    schema?.$ref?.split("/").pop() ??
    (schema?.enum
      ? schema.enum.map((v) => JSON.stringify(v)).join(" | ")
      : ((Array.isArray(schema?.type) ? schema.type.join(" | ") : schema?.type) ??
        (schema?.anyOf ?? schema?.oneOf)?.map((s) => s.type ?? "any").join(" | ") ??
        "any"));
  return `${param.name}${param.required ? "" : "?"}: ${type}`;
}
