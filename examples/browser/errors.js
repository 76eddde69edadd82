// MeshError has a code of docs/protocol.md, or: timeout, cancelled, remote, closed, replaced. One that is final says
// that another attempt would not help.
export class MeshError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "MeshError";
    this.code = code;
  }
}
