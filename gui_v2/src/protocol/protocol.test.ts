import { describe, expect, it } from "vitest";
import { endsSession } from "./codes";
import { answerFrame, newId, parseFrame, requestFrame } from "./frames";
import { errorOffset, parseJsonText } from "./jsontext";
import { exampleOf, type OpenRpcMethod, paramLabel, paramsTemplate, readDocument } from "./openrpc";

describe("parseFrame", () => {
  it("reads responses and pushes", () => {
    expect(parseFrame('{"id":"1","type":"response","status":"success"}')?.type).toBe("response");
    expect(parseFrame('{"type":"request","method":"note"}')?.type).toBe("request");
  });
  it.each([
    "",
    "nonsense",
    "null",
    "[]",
    "3",
    '{"type":"response"}',
    '{"type":"response","id":"1","status":"odd"}',
    '{"type":"request"}',
    '{"type":"other"}',
    new Blob(),
  ])("ignores what it does not understand: %s", (text) => {
    expect(parseFrame(text)).toBeNull();
  });
  it("builds a request and an answer as the contract says", () => {
    expect(requestFrame("1", "m", {}, {})).toEqual({
      id: "1",
      type: "request",
      method: "m",
      params: {},
      timestamp: expect.any(Number),
    });
    expect(answerFrame({ id: "p", method: "ui.ask" }, { answer: true })).toEqual({
      id: "p",
      type: "response",
      method: "ui.ask",
      status: "success",
      result: { answer: true },
      timestamp: expect.any(Number),
    });
  });
  it("makes ids that differ, without crypto.randomUUID", () => {
    expect(newId()).toMatch(/^[0-9a-f]{32}$/);
    expect(newId()).not.toBe(newId());
  });
  it("knows the errors that end a session", () => {
    expect(["SESSION_EXPIRED", "INVALID_TOKEN", "SESSION_FAILED", "BUSY"].map(endsSession)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});

describe("parseJsonText", () => {
  it.each([
    ['{"a": 1,\n "b" 2}', 2, 6],
    ['{"a": x}', 1, 7],
    ["[1, 2,]", 1, 7],
    ['{"a": 1,}', 1, 9],
    ['{"a": 1', 1, 8],
    ["{}\n{}", 2, 1],
    ["{a: 1}", 1, 2],
    ['["a\nb"]', 1, 2],
    ["01", 1, 2],
    ["[1}", 1, 3],
  ])("says where %j is wrong", (text, line, column) => {
    expect(parseJsonText(text)).toMatchObject({ ok: false, line, column });
  });
  it.each(['{"a":[1,-2.5e3,"x\\u00e9",null,true,{}],"b":[]}', " 3 ", '"s"', "[[]]"])("accepts %s", (text) => {
    expect(parseJsonText(text)).toEqual({ ok: true, value: JSON.parse(text) });
    expect(errorOffset(text)).toBeNull();
  });
  it("takes no text as no params", () => {
    expect(parseJsonText("  ")).toEqual({ ok: true, value: {} });
  });
});

describe("OpenRPC", () => {
  const document = {
    methods: [],
    components: {
      schemas: {
        Item: {
          type: "object",
          properties: { name: { type: "string" }, n: { type: "integer", minimum: 1 }, opt: {} },
          required: ["name", "n"],
        },
        Node: { type: "object", properties: { next: { $ref: "#/components/schemas/Node" } } },
      },
    },
  };
  it("makes a template of required params and of defaults", () => {
    const method: OpenRpcMethod = {
      name: "m",
      params: [
        { name: "item", required: true, schema: { $ref: "#/components/schemas/Item" } },
        { name: "mode", required: true, schema: { enum: ["fast", "slow"] } },
        { name: "maybe", required: true, schema: { anyOf: [{ type: "null" }, { type: "boolean" }] } },
        { name: "count", schema: { type: "integer", default: 3 } },
        { name: "left_out", schema: { type: "string" } },
      ],
    };
    expect(JSON.parse(paramsTemplate(method, document))).toEqual({
      item: { name: "", n: 1 },
      mode: "fast",
      maybe: false,
      count: 3,
    });
    expect(method.params?.map(paramLabel)).toEqual([
      "item: Item",
      'mode: "fast" | "slow"',
      "maybe: null | boolean",
      "count?: integer",
      "left_out?: string",
    ]);
  });
  it("survives a schema that contains itself", () => {
    expect(() => exampleOf({ $ref: "#/components/schemas/Node" }, document)).not.toThrow();
  });
  it("takes only a document with methods", () => {
    expect(readDocument({ methods: [{ name: "a" }, 3] })?.methods).toEqual([{ name: "a" }]);
    expect(readDocument({})).toBeNull();
  });
});
