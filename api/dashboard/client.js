// The endpoint's routes, as the page's key lets it use them.

const KEPT = 'cube-api-key'

export class Refusal extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

export class Client {
  // Of this tab only.
  get key() { return sessionStorage.getItem(KEPT) ?? '' }
  set key(text) {
    if (text) sessionStorage.setItem(KEPT, text)
    else sessionStorage.removeItem(KEPT)
  }

  async #fetch(method, path, body) {
    const headers = {}
    if (this.key) headers['X-API-Key'] = this.key
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    const answer = await fetch(path, { method, headers, cache: 'no-store',
      body: body === undefined ? undefined : JSON.stringify(body) })
    const text = await answer.text()
    if (answer.ok) return text
    let message = text
    try { message = JSON.parse(text).message } catch { /* it is as it is */ }
    throw new Refusal(answer.status, message)
  }

  async #json(method, path, body) {
    const text = await this.#fetch(method, path, body)
    return text ? JSON.parse(text) : undefined
  }

  // Of samples those that are later than that.
  status(sinceMs) { return this.#json('GET', `/cube/status?since=${sinceMs}`) }
  metrics() { return this.#fetch('GET', '/metrics') }
  sandbox(id) { return this.#json('GET', `/sandboxes/${id}`) }
  create(template) { return this.#json('POST', '/v2/sandboxes', { templateID: template, timeout: 3600, secure: true }) }
  pause(id) { return this.#json('POST', `/sandboxes/${id}/pause`, {}) }
  resume(id) { return this.#json('POST', `/sandboxes/${id}/connect`, { timeout: 3600 }) }
  fork(id) { return this.#json('POST', `/sandboxes/${id}/fork`, { timeout: 3600 }) }
  kill(id) { return this.#json('DELETE', `/sandboxes/${id}`) }
}
