// What tests/e2b/machine.mjs gives its tests, through cubed: the same tests then hold for the endpoint.
import { e2b, Node } from './node.mjs'

export { News } from './news.mjs'
export { e2b }

export class Machine {
  static async start() {
    const machine = new Machine()
    machine.node = await Node.start({ config: '[pool]\nsize = 1\n' })
    machine.url = machine.node.url
    machine.created = await machine.node.create('base', { envs: { FROM_INIT: 'yes' }, timeoutMs: 3600_000 })
    machine.id = machine.created.sandboxId
    return machine
  }

  sandbox(options = {}) {
    return new e2b.Sandbox({ ...this.node.options, sandboxId: this.id, envdVersion: '0.6.13',
      envdAccessToken: this.created.envdAccessToken, ...options })
  }

  async fetch(port, target) {
    const answer = await this.node.fetchGuest(this.created, port, target)
    if (answer.status === 502) throw new Error(await answer.text())
    return answer
  }

  // There has been one from the beginning.
  async makeToken() { return this.created.envdAccessToken }

  stop() { return this.node.stop() }
}
