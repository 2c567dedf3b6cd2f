// What tests/code_interpreter/machine.mjs gives its test, through one cubed for all of its sandboxes.
import { Node } from './node.mjs'

let node
let users = 0

export async function startSandbox(Sandbox) {
  users++
  node ??= Node.start({ config: '[pool]\nsize = 1\n', template: 'code-interpreter-v1' })
  const { options } = await node
  const sandbox = await Sandbox.create({ ...options, timeoutMs: 3600_000 })
  return {
    sandbox,
    async stop() {
      await sandbox.kill()
      if (--users === 0) await (await node).stop()
    },
  }
}
