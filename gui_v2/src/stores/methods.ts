/** The methods of the server, from `rpc.discover`. */
import { create } from "zustand";
import type { Json } from "../protocol/frames";
import { type OpenRpcDocument, type OpenRpcMethod, readDocument } from "../protocol/openrpc";

interface MethodsView {
  document: OpenRpcDocument;
  loaded: boolean;
}

export const useMethods = create<MethodsView>(() => ({ document: { methods: [] }, loaded: false }));

export function showMethods(result: Json): void {
  const document = readDocument(result);
  if (document) useMethods.setState({ document, loaded: true });
}

export function findMethod(document: OpenRpcDocument, name: string): OpenRpcMethod | undefined {
  return document.methods.find((method) => method.name === name);
}
