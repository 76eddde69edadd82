// MeshError has a code of docs/protocol.md, or: timeout, cancelled, remote, closed, replaced. One that is final says
// that another attempt would not help.
export class MeshError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "MeshError";
    this.code = code;
  }
}

// HandlerError is thrown by a handler that chooses what the peer learns: a text, a code, and details for programs.
export class HandlerError extends Error {
  constructor(text, code = "app", details = undefined) {
    super(text);
    this.name = "HandlerError";
    this.code = code;
    this.details = details;
  }
}
