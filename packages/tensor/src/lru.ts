/** A map that keeps the entries used last. */
export class Lru<Value> {
  readonly #capacity: number;
  readonly #evict: (value: Value) => void;
  readonly #entries = new Map<string, Value>();
  /** The key used last. */
  #latest: string | null = null;

  /** `evict` is called with each value that makes room, and with all of them by `clear`. */
  constructor(capacity: number, evict: (value: Value) => void) {
    this.#capacity = capacity;
    this.#evict = evict;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Value | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    if (key !== this.#latest) {
      // A map iterates in the order of insertion: the first entry is the one unused for longest.
      this.#entries.delete(key);
      this.#entries.set(key, value);
      this.#latest = key;
    }
    return value;
  }

  set(key: string, value: Value): void {
    this.#entries.set(key, value);
    this.#latest = key;
    for (const [oldest, evicted] of this.#entries) {
      if (this.#entries.size <= this.#capacity) return;
      this.#entries.delete(oldest);
      this.#evict(evicted);
    }
  }

  /** Forgets an entry without evicting its value. */
  delete(key: string): void {
    this.#entries.delete(key);
  }

  clear(): void {
    for (const value of this.#entries.values()) this.#evict(value);
    this.#entries.clear();
  }
}

/** The latest results of work that takes a while, by key: who asks while it is under way waits for the same. */
export class Remembered<Value> extends Lru<Promise<Value>> {
  constructor(capacity: number, evict: (value: Value) => void = () => {}) {
    super(capacity, (evicted) => {
      evicted.then(evict, () => {});
    });
  }

  /** What is known by the key, or made now. What failed is made again next time. */
  of(key: string, make: () => Promise<Value>): Promise<Value> {
    const known = this.get(key);
    if (known) return known;
    const made = make();
    this.set(key, made);
    made.catch(() => this.delete(key));
    return made;
  }
}
