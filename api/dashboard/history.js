// What is known of each sandbox's past: the node's samples, and rates of counters that are read here.

const KEPT = 60

const keep = (list, item) => {
  list.push(item)
  if (list.length > KEPT) list.shift()
}

export class History {
  #all = new Map()
  latestMs = 0

  // Of an answer of /cube/status.
  add({ now_ms: now, sandboxes, samples, networks }) {
    const ids = new Set(sandboxes.map(({ id }) => id))
    for (const id of this.#all.keys()) if (!ids.has(id)) this.#all.delete(id)
    for (const id of ids) {
      if (!this.#all.has(id)) this.#all.set(id, { cpu: [], memory: [], in: [], out: [], counted: null })
      const one = this.#all.get(id)
      for (const [time, cpu, memory] of samples[id] ?? []) {
        keep(one.cpu, cpu)
        keep(one.memory, memory)
        this.latestMs = Math.max(this.latestMs, time)
      }
    }
    for (const { id, bytes_in: came, bytes_out: went } of networks ?? []) {
      const one = this.#all.get(id)
      if (one === undefined) continue
      const seconds = one.counted ? (now - one.counted.now) / 1000 : 0
      if (seconds > 0) {
        keep(one.in, Math.max(0, came - one.counted.came) / seconds)
        keep(one.out, Math.max(0, went - one.counted.went) / seconds)
      }
      one.counted = { now, came, went }
    }
  }

  of(id) { return this.#all.get(id) }
}
