// What identity.js keeps in this browser, in IndexedDB: tables of records by keys that are lists, the mesh's name first.
// All tabs of an origin share it. A key pair in a record can be used and never read.
//
//   own     [mesh, name of the key] → {pair, id, statement}
//   known   [mesh, peer id]         → the peer's public key

const TABLES = ["own", "known"];

export class KeyStore {
  #db;

  static async open() {
    const request = indexedDB.open("mesh", 1);
    request.onupgradeneeded = () => TABLES.forEach((table) => request.result.createObjectStore(table));
    const store = new KeyStore();
    store.#db = await result(request);
    return store;
  }

  get(table, key) {
    return result(this.#db.transaction(table).objectStore(table).get(key));
  }

  // count returns how many records of a mesh there are.
  count(table, mesh) {
    return result(this.#db.transaction(table).objectStore(table).count(IDBKeyRange.bound([mesh], [mesh, []])));
  }

  // update replaces a record by what change makes of it, in one step for all tabs, and returns that once it is durable.
  async update(table, key, change) {
    let record;
    await this.#write(table, (records) => {
      records.get(key).onsuccess = ({ target }) => {
        record = change(target.result);
        records.put(record, key);
      };
    });
    return record;
  }

  delete(table, key) {
    return this.#write(table, (records) => records.delete(key));
  }

  #write(table, work) {
    const transaction = this.#db.transaction(table, "readwrite", { durability: "strict" });
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser keeps nothing"));
      work(transaction.objectStore(table));
    });
  }
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
