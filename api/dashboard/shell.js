// A shell on a terminal in a sandbox: the agent's process.Process (docs/envd.md), by Connect's JSON.

const AGENT_PORT = '49983'
const END_OF_STREAM = 2

const toBase64 = (bytes) => {
  let text = ''
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192))
  return btoa(text)
}
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))

// A message with its five bytes in front: flags, and its length.
const enveloped = (message) => {
  const text = new TextEncoder().encode(JSON.stringify(message))
  const bytes = new Uint8Array(5 + text.length)
  new DataView(bytes.buffer).setUint32(1, text.length)
  bytes.set(text, 5)
  return bytes
}

// The messages of a response, as they come.
async function* messages(body) {
  const reader = body.getReader()
  let held = new Uint8Array()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const joined = new Uint8Array(held.length + value.length)
    joined.set(held)
    joined.set(value, held.length)
    held = joined
    while (held.length >= 5) {
      const size = new DataView(held.buffer, held.byteOffset).getUint32(1)
      if (held.length < 5 + size) break
      const message = JSON.parse(new TextDecoder().decode(held.subarray(5, 5 + size)))
      yield { last: (held[0] & END_OF_STREAM) !== 0, message }
      held = held.subarray(5 + size)
    }
  }
}

export class Shell {
  #headers
  #pid = 0
  #stop = new AbortController()
  #typed = []
  #sending = false

  // `token`: the sandbox's own, or undefined.
  constructor(id, token) {
    this.#headers = { 'E2b-Sandbox-Id': id, 'E2b-Sandbox-Port': AGENT_PORT, 'Connect-Protocol-Version': '1' }
    if (token) this.#headers['X-Access-Token'] = token
  }

  // Until it ends: how. `show` gets the bytes that it writes, `begun` is called when input is taken.
  async run({ cols, rows }, show, begun) {
    const response = await fetch('/process.Process/Start', {
      method: 'POST',
      headers: { ...this.#headers, 'Content-Type': 'application/connect+json' },
      body: enveloped({
        process: { cmd: '/bin/sh', args: ['-c', 'exec "$(command -v bash || echo sh)" -i -l'],
          envs: { TERM: 'xterm-256color', LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8' } },
        pty: { size: { cols, rows } },
      }),
      signal: this.#stop.signal,
    })
    if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `status ${response.status}`)
    for await (const { last, message } of messages(response.body)) {
      if (last) {
        if (message.error) throw new Error(message.error.message ?? message.error.code)
        break
      }
      const { start, data, end } = message.event ?? {}
      if (start) {
        this.#pid = start.pid
        begun()
        this.#send()
      }
      if (data?.pty) show(fromBase64(data.pty))
      if (end) this.#pid = 0
      if (end) return end.status ?? `exit status ${end.exitCode ?? 0}`
    }
    return 'the connection has ended'
  }

  #call(method, message) {
    return fetch(`/process.Process/${method}`, {
      method: 'POST', headers: { ...this.#headers, 'Content-Type': 'application/json' },
      body: JSON.stringify({ process: { pid: this.#pid }, ...message }), signal: this.#stop.signal,
    })
  }

  // One request after another, so that nothing overtakes: what is typed meanwhile goes together.
  async #send() {
    if (this.#sending || this.#pid === 0) return
    this.#sending = true
    try {
      while (this.#typed.length > 0) {
        const bytes = new Uint8Array(await new Blob(this.#typed.splice(0)).arrayBuffer())
        await this.#call('SendInput', { input: { pty: toBase64(bytes) } })
      }
    } catch { /* the stream says how it ended */ }
    this.#sending = false
  }

  type(bytes) {
    this.#typed.push(bytes)
    this.#send()
  }

  resize({ cols, rows }) {
    if (this.#pid !== 0) this.#call('Update', { pty: { size: { cols, rows } } }).catch(() => {})
  }

  async close() {
    try {
      if (this.#pid !== 0) await this.#call('SendSignal', { signal: 'SIGNAL_SIGKILL' })
    } catch { /* it is gone already */ }
    this.#stop.abort()
  }
}
